// One stream: what is known of it, what happened when, and the button that ends it.

import { askOnce } from "../api.js";
import { element } from "../dom.js";
import { between, duration, number, stateOf, timeOfDay, words } from "./words.js";

const by = (id) => document.getElementById(id);
const EVERY_MS = 1000;

const WHAT = {
  created: () => "created and queued",
  parked: ({ detail }) => `waits, since ${detail} may have no more at once`,
  claimed: ({ detail }) => `taken by ${detail}`,
  taken_over: ({ detail, attempt }) => `taken over by ${detail}, attempt ${attempt}`,
  provider_failed: ({ detail }) => `failed: ${words(detail)}`,
  first_token: ({ attempt }) => (attempt > 1 ? `first token of attempt ${attempt}` : "first token"),
  handed_over: () => "handed over by a worker that left",
  resumed: ({ detail }) => (detail === "reset" ? "a reader came back, and began anew" : "a reader came back"),
  cancel_asked: () => "cancel asked for",
  ended: ({ detail }) => `ended: ${words(detail)}`,
};

export class Detail {
  constructor() {
    this.dialog = by("detail");
    this.id = null;
    this.timer = 0;
    by("close").addEventListener("click", () => this.dialog.close());
    by("stop").addEventListener("click", () => this.stop());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => {
      this.id = null;
      clearTimeout(this.timer);
      history.replaceState(null, "", location.pathname);
    });
  }

  open(id) {
    this.id = id;
    by("detail-id").textContent = id;
    by("detail-problem").textContent = "";
    for (const place of ["facts", "timeline", "detail-note"]) by(place).replaceChildren();
    by("detail-state").textContent = "…";
    by("stop").hidden = true;
    history.replaceState(null, "", `#${id}`);
    if (!this.dialog.open) this.dialog.showModal();
    this.refresh();
  }

  async refresh() {
    const id = this.id;
    clearTimeout(this.timer);
    try {
      const stream = await askOnce(`/ops/streams/${encodeURIComponent(id)}`);
      if (id !== this.id) return;
      this.show(stream);
      if (!stream.ended_at) this.timer = setTimeout(() => this.refresh(), EVERY_MS);
    } catch (error) {
      if (id !== this.id) return;
      by("detail-problem").textContent = `${error.message}.`;
      if (error.status === 0 || error.status >= 500) this.timer = setTimeout(() => this.refresh(), EVERY_MS);
      else by("detail-state").textContent = "not there";
    }
  }

  async stop() {
    by("stop").disabled = true;
    by("detail-problem").textContent = "";
    try {
      await askOnce(`/ops/streams/${encodeURIComponent(this.id)}/cancel`, { method: "POST" });
      await this.refresh();
    } catch (error) {
      by("detail-problem").textContent = `${error.message}.`;
    } finally {
      by("stop").disabled = false;
    }
  }

  show(stream) {
    const [state, colour] = stateOf(stream);
    const chip = by("detail-state");
    chip.textContent = state;
    chip.dataset.status = colour;
    const place = stream.place ? `number ${stream.place} in the queue · ` : "";
    by("detail-note").textContent = stream.ended_at ? "" : `${place}${stream.read_now ? "somebody" : "nobody"} reads it now`;
    by("stop").hidden = Boolean(stream.ended_at) || stream.is_cancelled;
    const usage = stream.usage;
    const facts = [
      ["Model", `${stream.provider}/${stream.model}`],
      ["Owner", stream.owner],
      ["Worker", stream.worker],
      ["Events", number(stream.events)],
      ["Resumes", stream.resumes ? number(stream.resumes) : null],
      ["If nobody reads", stream.on_disconnect === "cancel" ? "it is ended after a while" : "it goes on"],
      ["Tokens", usage && `${number(usage.input_tokens)} in, ${number(usage.output_tokens)} out${usage.estimated ? " (estimated)" : ""}`],
      ["Error", stream.error && `${words(stream.error.code)}: ${stream.error.message}`],
    ];
    by("facts").replaceChildren(...facts.filter(([, value]) => value).map(([name, value]) => fact(name, value)));
    by("timeline").replaceChildren(...stream.timeline.map((each) => happening(each, stream.created_at)));
  }
}

function fact(name, value) {
  const made = element("div");
  made.append(element("dt", "", name), element("dd", "", value));
  return made;
}

function happening(each, since) {
  const made = element("li");
  made.dataset.what = each.what;
  const time = element("time", "quiet", timeOfDay(each.at));
  time.dateTime = each.at;
  made.append(element("span", "what", WHAT[each.what]?.(each) ?? words(each.what)), element("span", "after", `+${duration(between(since, each.at))}`), time);
  return made;
}
