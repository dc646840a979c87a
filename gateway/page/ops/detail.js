// Details of one stream: its attributes, its timeline, and the button that cancels it.

import { fetchJson } from "../api.js";
import { element } from "../dom.js";
import { between, duration, number, stateOf, timeOfDay, words } from "./labels.js";

const byId = (id) => document.getElementById(id);
const EVERY_MS = 1000;

const TIMELINE_TEXTS = {
  created: () => "created and queued",
  parked: ({ detail }) => `waiting: ${detail} is at its concurrency limit`,
  claimed: ({ detail }) => `taken by ${detail}`,
  taken_over: ({ detail, attempt }) => `taken over by ${detail}, attempt ${attempt}`,
  provider_failed: ({ detail }) => `failed: ${words(detail)}`,
  first_token: ({ attempt }) => (attempt > 1 ? `first token of attempt ${attempt}` : "first token"),
  handed_over: () => "handed over by a worker that shut down",
  resumed: ({ detail }) => (detail === "reset" ? "a reader resumed, from the start" : "a reader resumed"),
  cancel_asked: () => "cancel requested",
  ended: ({ detail }) => `ended: ${words(detail)}`,
  webhook: ({ detail }) => `webhook ${words(detail)}`,
};

export class Detail {
  constructor() {
    this.dialog = byId("detail");
    this.id = null;
    this.timer = 0;
    byId("close").addEventListener("click", () => this.dialog.close());
    byId("stop").addEventListener("click", () => this.stop());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => {
      this.id = null;
      clearTimeout(this.timer);
      history.replaceState(null, "", location.pathname);
    });
  }

  open(id) {
    this.id = id;
    byId("detail-id").textContent = id;
    byId("detail-problem").textContent = "";
    for (const id of ["facts", "timeline", "detail-note"]) byId(id).replaceChildren();
    byId("detail-state").textContent = "…";
    byId("stop").hidden = true;
    history.replaceState(null, "", `#${id}`);
    if (!this.dialog.open) this.dialog.showModal();
    this.refresh();
  }

  async refresh() {
    const id = this.id;
    clearTimeout(this.timer);
    try {
      const stream = await fetchJson(`/ops/streams/${encodeURIComponent(id)}`);
      if (id !== this.id) return;
      this.show(stream);
      if (!stream.ended_at) this.timer = setTimeout(() => this.refresh(), EVERY_MS);
    } catch (error) {
      if (id !== this.id) return;
      byId("detail-problem").textContent = `${error.message}.`;
      if (error.status === 0 || error.status >= 500) this.timer = setTimeout(() => this.refresh(), EVERY_MS);
      else byId("detail-state").textContent = "not found";
    }
  }

  async stop() {
    byId("stop").disabled = true;
    byId("detail-problem").textContent = "";
    try {
      await fetchJson(`/ops/streams/${encodeURIComponent(this.id)}/cancel`, { method: "POST" });
      await this.refresh();
    } catch (error) {
      byId("detail-problem").textContent = `${error.message}.`;
    } finally {
      byId("stop").disabled = false;
    }
  }

  show(stream) {
    const [state, colour] = stateOf(stream);
    const chip = byId("detail-state");
    chip.textContent = state;
    chip.dataset.status = colour;
    const position = stream.place ? `position ${stream.place} in the queue · ` : "";
    byId("detail-note").textContent = stream.ended_at ? "" : `${position}${stream.read_now ? "being read now" : "no reader now"}`;
    byId("stop").hidden = Boolean(stream.ended_at) || stream.is_cancelled;
    const usage = stream.usage;
    const facts = [
      ["Model", `${stream.provider}/${stream.model}`],
      ["Owner", stream.owner],
      ["Class", stream.priority],
      ["Worker", stream.worker],
      ["Events", number(stream.events)],
      ["Resumes", stream.resumes ? number(stream.resumes) : null],
      ["Without readers", stream.on_disconnect === "cancel" ? "cancelled after its grace period" : "continues"],
      ["Tokens", usage && `${number(usage.input_tokens)} in, ${number(usage.output_tokens)} out${usage.estimated ? " (estimated)" : ""}`],
      ["Error", stream.error && `${words(stream.error.code)}: ${stream.error.message}`],
    ];
    byId("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => fact(name, value)));
    byId("timeline").replaceChildren(...stream.timeline.map((each) => timelineEntry(each, stream.created_at)));
  }
}

function fact(name, value) {
  const made = element("div");
  made.append(element("dt", "", name), element("dd", "", value));
  return made;
}

function timelineEntry(each, since) {
  const made = element("li");
  made.dataset.what = each.what;
  const time = element("time", "quiet", timeOfDay(each.at));
  time.dateTime = each.at;
  made.append(element("span", "what", TIMELINE_TEXTS[each.what]?.(each) ?? words(each.what)), element("span", "after", `+${duration(between(since, each.at))}`), time);
  return made;
}
