// Connection panel: worker → stream → you, counts that show that no event comes twice, and a button that cuts.

import { keep } from "./key.js";

const AWAY_S = 2;
const CUT_EVERY_MS = 3000;
const FOLDED = "headrace.panel"; // in localStorage
const LIVE = new Set(["queued", "waiting", "streaming", "reconnecting"]);

export class ConnectionPanel {
  constructor() {
    const byId = (id) => document.getElementById(id);
    this.root = byId("link");
    this.state = byId("answer-state");
    this.note = byId("note");
    this.countdown = byId("countdown");
    this.figures = { connections: byId("connections"), events: byId("events"), duplicates: byId("duplicates") };
    this.lastId = byId("last-id");
    this.button = byId("cut");
    this.keep = byId("keep-cutting");
    this.foldButton = byId("fold");
    this.reader = null;
    this.tick = 0;
    this.next = 0;
    this.frame = 0;
    this.button.addEventListener("click", () => this.cut());
    this.keep.addEventListener("change", () => this.schedule());
    this.fold(localStorage.getItem(FOLDED) === "folded");
    this.foldButton.addEventListener("click", () => {
      this.fold(!this.root.classList.contains("folded"));
      keep(localStorage, FOLDED, this.root.classList.contains("folded") ? "folded" : "");
    });
  }

  /** Leaves one line of the panel, with the answer's state. */
  fold(isFolded) {
    this.root.classList.toggle("folded", isFolded);
    this.foldButton.setAttribute("aria-expanded", String(!isFolded));
  }

  /** Shows this reader from now on; null: there is none yet. */
  follow(reader) {
    this.stopCutting();
    this.reader = reader;
    this.root.hidden = false;
    this.count();
  }

  hide() {
    this.stopCutting();
    this.reader = null;
    this.root.hidden = true;
  }

  get isHidden() {
    return this.root.hidden;
  }

  isAway() {
    return this.tick !== 0;
  }

  show(state, note = "") {
    this.root.dataset.state = state;
    // Screen readers announce every write, so an unchanged text is not written again.
    if (this.state.textContent !== state) this.state.textContent = state;
    if (this.note.textContent !== note) this.note.textContent = note;
    this.button.disabled = !LIVE.has(state) || !this.reader || this.isAway();
    if (!LIVE.has(state)) this.stopCutting();
    else if (state === "streaming") this.schedule();
  }

  /** At most once a frame, however many events come. */
  count() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      for (const [name, cell] of Object.entries(this.figures)) cell.textContent = this.reader?.[name] ?? 0;
      this.root.classList.toggle("wrong", (this.reader?.duplicates ?? 0) > 0);
      this.lastId.textContent = this.reader?.cursor || "–";
    });
  }

  schedule() {
    if (!this.keep.checked) {
      clearTimeout(this.next);
      this.next = 0;
    } else if (!this.next && this.reader && LIVE.has(this.root.dataset.state)) {
      this.next = setTimeout(() => {
        this.next = 0;
        this.cut();
      }, CUT_EVERY_MS);
    }
  }

  /** Cuts the connection, and resumes from the cursor after a while. */
  cut() {
    const { reader } = this;
    if (!reader || reader.ended || this.isAway()) return;
    let left = AWAY_S;
    this.tick = setInterval(() => {
      left -= 1;
      this.countdown.textContent = left;
      if (left > 0) return;
      this.stopAway();
      reader.open();
    }, 1000);
    this.countdown.textContent = left;
    this.root.classList.add("away");
    reader.cut();
  }

  stopAway() {
    clearInterval(this.tick);
    this.tick = 0;
    this.countdown.textContent = "";
    this.root.classList.remove("away");
  }

  stopCutting() {
    this.stopAway();
    clearTimeout(this.next);
    this.next = 0;
  }
}
