// The chat on the screen: its turns as the gateway has them, and those that were started here.

import { readChat } from "./api.js";
import { forgetLater } from "./later.js";
import { Throttle } from "./throttle.js";
import { Turn } from "./turn.js";

const URGENT = 8; // turns that are formatted at once; the others follow while the page is in use

export class Conversation {
  /** `on`: state(turn, note) and counted(turn) of the last turn; added(), retry(turn), rendered(). */
  constructor(area, on) {
    this.area = area;
    this.on = on;
    this.drawn = new Throttle(() => {}, () => on.rendered());
    this.turns = [];
    Object.defineProperty(window, "headraceText", { get: () => this.last?.answer.text }); // for tests
    this.clear();
  }

  /** The last turn, or undefined. */
  get last() {
    return this.turns.at(-1);
  }

  get isLive() {
    return this.last?.isLive ?? false;
  }

  /** Empties the screen. Answers continue at the gateway. */
  clear() {
    for (const turn of this.turns) turn.leave();
    forgetLater();
    this.id = null;
    this.turns = [];
    this.page = null; // the gateway's last page of turns that was read
    this.loading = null;
    this.area.replaceChildren();
  }

  /** Shows a chat. Rejects if it cannot be read. */
  open(id) {
    this.clear();
    this.id = id;
    return this.refresh();
  }

  /** Shows one answer, without its question. */
  openStream(streamUrl) {
    this.clear();
    this.add([]).read(streamUrl);
  }

  /** Sends messages as a new turn of a chat. Resolves with true once the gateway has accepted them. */
  async ask(id, messages, choice) {
    this.id = id;
    // With `add`, a chat that the gateway has forgotten is an error, and not an answer that knows nothing of it.
    const history = this.turns.some((turn) => turn.id) ? { history: "add" } : {};
    const turn = this.add(messages);
    turn.choice = choice;
    this.on.state(turn);
    return turn.submit({ ...choice, ...history, chat_id: id, messages, on_disconnect: "continue" });
  }

  /** Removes a turn that the gateway never accepted. */
  drop(turn) {
    turn.element.remove();
    this.turns = this.turns.filter((other) => other !== turn);
  }

  reopen() {
    for (const turn of this.turns) turn.reader?.open();
  }

  close() {
    for (const turn of this.turns) turn.close();
  }

  /** Adds the turns that were started elsewhere. */
  refresh() {
    const { id } = this;
    if (id === null) return Promise.resolve();
    this.loading ??= this.load(id).finally(() => {
      if (this.id === id) this.loading = null;
    });
    return this.loading;
  }

  async load(id) {
    for (;;) {
      const { turns, next_page: next } = await readChat(id, this.page);
      if (this.id !== id) return;
      this.merge(turns, next === null);
      if (next === null) return;
      this.page = next;
    }
  }

  merge(stored, isEnd) {
    // One that is just being sent may already be among them: it is merged by the refresh after its response.
    if (this.turns.some((turn) => turn.id === "" && turn.isLive)) return;
    const known = new Set(this.turns.map((turn) => turn.id));
    for (const [at, turn] of stored.entries()) {
      if (!known.has(turn.stream_id)) this.addStored(turn, isEnd && stored.length - at <= URGENT);
    }
  }

  addStored({ stream_id: id, stream_url: url, history, messages, answer }, isUrgent) {
    const turn = this.add(messages ?? []); // null: the client of the chat keeps them
    turn.id = id;
    if (history === "given" && this.turns.length > 1) turn.markBranch();
    if (answer?.finish_reason) turn.fillFrom(answer, isUrgent);
    else if (answer) turn.read(url);
    else turn.fail("This answer is no longer stored.", "", false);
  }

  add(messages) {
    const isLast = (turn) => turn === this.last;
    const turn = new Turn(messages, {
      state: (of, note) => isLast(of) && this.on.state(of, note),
      counted: (of) => isLast(of) && this.on.counted(),
      retry: (of) => this.on.retry(of),
      rendered: () => (isLast(turn) ? this.on.rendered() : this.drawn.request()),
    });
    this.turns.push(turn);
    this.area.append(turn.element);
    turn.answer.markCurrent();
    this.on.added(turn);
    return turn;
  }
}
