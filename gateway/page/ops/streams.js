// Table of streams. A row remains the same element while it is shown, so that it keeps the focus.

import { element } from "../dom.js";
import { between, classChip, duration, number, shortId, stateOf, words } from "./labels.js";

const TITLES = { streams: "Live streams", ended: "Recently ended", failed: "Recently failed" };

export class StreamTable {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.body = document.querySelector("#streams tbody");
    this.title = document.getElementById("streams-title");
    this.note = document.getElementById("streams-note");
    this.none = document.getElementById("none");
    this.tabs = [...document.querySelectorAll(".tabs button")];
    this.list = "streams";
    this.rows = new Map();
    this.overview = null;
    for (const tab of this.tabs) tab.addEventListener("click", () => this.choose(tab.dataset.list));
  }

  choose(list) {
    this.list = list;
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", String(tab.dataset.list === list));
    if (this.overview) this.show(this.overview);
  }

  show(overview) {
    this.overview = overview;
    const streams = overview[this.list];
    this.title.textContent = TITLES[this.list];
    const isPart = this.list === "streams" && overview.live > overview.streams_at_most;
    this.note.textContent = isPart ? `${number(streams.length)} of ${number(overview.live)} shown` : "";
    this.none.hidden = streams.length > 0;
    const rows = new Map(streams.map((stream) => [stream.stream_id, this.rows.get(stream.stream_id) ?? this.row(stream.stream_id)]));
    for (const [id, row] of this.rows) if (!rows.has(id)) row.remove();
    let before = null;
    for (const stream of streams) {
      const row = rows.get(stream.stream_id);
      this.fill(row, stream, overview.at);
      const next = before ? before.nextSibling : this.body.firstChild;
      if (next !== row) this.body.insertBefore(row, next); // moved only if necessary, because a move loses the focus
      before = row;
    }
    this.rows = rows;
  }

  row(id) {
    const row = element("tr");
    row.dataset.id = id;
    row.dataset.testid = "stream";
    const open = element("button", "link", shortId(id));
    open.type = "button";
    open.title = id;
    const first = element("td");
    first.append(open);
    row.append(first);
    for (let column = 1; column < 10; column += 1) row.append(element("td", [5, 6, 7, 8].includes(column) ? "number" : ""));
    row.addEventListener("click", () => this.onOpen(id));
    return row;
  }

  fill(row, stream, now) {
    const [state, colour] = stateOf(stream);
    const chip = element("span", "chip", state);
    chip.dataset.status = colour;
    const why = stream.reason && stream.reason !== "cancelled" ? words(stream.reason) : "";
    const [, stateCell, priority, model, owner, age, first, events, attempt, worker] = row.children;
    stateCell.replaceChildren(chip, element("small", "quiet", why));
    priority.replaceChildren(stream.priority === "batch" ? classChip("batch") : (stream.priority ?? "–")); // older gateways name none
    model.replaceChildren(element("span", "quiet", `${stream.provider}/`), stream.model);
    owner.textContent = stream.owner;
    age.textContent = duration(between(stream.created_at, stream.ended_at ?? now));
    first.textContent = duration(between(stream.created_at, stream.first_token_at));
    events.textContent = number(stream.events);
    attempt.textContent = stream.attempt || "–";
    worker.textContent = stream.worker ?? "–";
  }
}
