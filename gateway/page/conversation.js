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
    this.submitted = null; // resolves once the gateway has accepted or refused the newest question
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
    // With `add`, a chat that the gateway has forgotten is an error, and not an answer that knows nothing of it.
    const history = id === this.id ? { history: "add" } : {}; // a new chat gets its id with this question
    this.id = id;
    const turn = this.add(messages);
    turn.choice = choice;
    this.on.state(turn);
    this.submitted = turn.submit({ ...choice, ...history, chat_id: id, messages, on_disconnect: "continue" });
    return this.submitted;
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
      await this.submitted; // the question that is being sent may be among the turns, and has no id before
      if (this.id !== id) return;
      this.merge(turns, next === null);
      if (next === null) return;
      this.page = next;
    }
  }

  /** Shows a page of the gateway's turns, in its order. Questions that it has not listed yet stay behind them. */
  merge(stored, isEnd) {
    let at = this.turns.findLastIndex((turn) => turn.isListed) + 1;
    for (const [index, entry] of stored.entries()) {
      const isUrgent = isEnd && stored.length - index <= URGENT;
      const turn = this.turns.find(({ id }) => id === entry.stream_id) ?? this.addStored(entry, at, isUrgent);
      turn.isListed = true;
      at = Math.max(at, this.turns.indexOf(turn) + 1);
    }
  }

  addStored({ stream_id: id, stream_url: url, history, messages, answer }, at, isUrgent) {
    const isRunning = answer && !answer.finish_reason;
    // A question that was refused stays above the running answer, as only the last turn can be stopped.
    while (isRunning && this.turns[at]?.id === "") at += 1;
    const turn = this.add(messages ?? [], at); // null: the client of the chat keeps them
    turn.id = id;
    if (history === "given" && at > 0) turn.markBranch();
    if (isRunning) turn.read(url);
    else if (answer) turn.fillFrom(answer, isUrgent);
    else turn.fail("This answer is no longer stored.", "", false);
    return turn;
  }

  /** Adds a turn at a place among the others; without `at`, as the last one. */
  add(messages, at = this.turns.length) {
    const isLast = (turn) => turn === this.last;
    const turn = new Turn(messages, {
      state: (of, note) => isLast(of) && this.on.state(of, note),
      counted: (of) => isLast(of) && this.on.counted(),
      retry: (of) => this.on.retry(of),
      ended: (of, done) => isLast(of) && this.on.ended(of, done),
      rendered: () => (isLast(turn) ? this.on.rendered() : this.drawn.request()),
    });
    this.area.insertBefore(turn.element, this.turns[at]?.element ?? null);
    this.turns.splice(at, 0, turn);
    if (isLast(turn)) {
      turn.answer.markCurrent();
      this.on.added(turn);
    }
    return turn;
  }
}
