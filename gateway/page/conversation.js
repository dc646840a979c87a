// The chat on the screen: its turns as the gateway has them, and those that were started here.

import { readChat } from "./api.js";
import { arrange, branchFields, newMessages, parentOf } from "./branches.js";
import { forgetLater } from "./later.js";
import { Throttle } from "./throttle.js";
import { Turn } from "./turn.js";

const URGENT = 8; // turns that are formatted at once; the others follow while the page is in use

export class Conversation {
  /** `on`: state(turn, note), counted(turn) and ended(turn, done) of the last turn; added(), rendered(), retry(turn),
   *  regenerate(turn), edit(turn, message, element). */
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

  /** Sends messages as a new turn of a chat. Resolves with true once the gateway has accepted them. `replaced`: the
   *  turn that it replaces, with all after it. */
  async ask(id, messages, choice, replaced = null) {
    const after = replaced && this.parentOf(replaced);
    if (replaced) this.dropRefused(replaced);
    // With `add`, a chat that the gateway has forgotten is an error, and not an answer that knows nothing of it.
    const history = id === this.id ? { history: "add" } : {}; // a new chat gets its id with this question
    const fields = after === null ? { ...history, messages } : branchFields(after, this.pathTo(after), messages);
    this.id = id;
    const turn = this.add(messages);
    turn.choice = choice;
    turn.after = after;
    this.on.state(turn);
    this.arrange();
    this.submitted = turn.submit({ ...choice, ...fields, chat_id: id, on_disconnect: "continue" });
    return this.submitted;
  }

  /** The id of the turn before one; null if its question goes to the end of the chat. */
  parentOf(turn) {
    if (turn.isRefused) return turn.after;
    const { path } = arrange(this.turns);
    return path[path.indexOf(turn) - 1]?.id ?? "";
  }

  pathTo(id) {
    const { path } = arrange(this.turns);
    return path.slice(0, path.findIndex((turn) => turn.id === id) + 1);
  }

  /** Returns true if the turn can be asked again: it is on the screen, and the page has all before it. */
  canReplace(turn) {
    return this.turns.includes(turn) && isReplaceable(turn, arrange(this.turns));
  }

  /** Removes the turn and those after it, as far as the gateway never accepted them. */
  dropRefused(turn) {
    const from = this.turns.indexOf(turn);
    const dropped = this.turns.filter((other, at) => at >= from && other.isRefused);
    for (const other of dropped) other.element.remove();
    this.turns = this.turns.filter((other) => !dropped.includes(other));
  }

  /** Shows which turns were replaced, and what can be done with the others. */
  arrange() {
    const { path, isWhole, replaced, branched } = arrange(this.turns);
    const hidden = new Set([...replaced.values()].flat());
    for (const turn of this.turns) {
      const canReplace = isReplaceable(turn, { path, isWhole });
      turn.place({
        replaced: (replaced.get(turn) ?? []).map((old) => old.element),
        isReplaced: hidden.has(turn),
        isBranched: branched.has(turn),
        canEdit: canReplace && turn.messages.length > 0 && !turn.isLive,
        canRegenerate: canReplace && turn === this.last && !turn.isLive,
      });
    }
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
    this.arrange();
  }

  addStored({ stream_id: id, stream_url: url, history, messages, answer }, at, isUrgent) {
    const isRunning = answer && !answer.finish_reason;
    // A question that was refused stays above the running answer, as only the last turn can be stopped.
    while (isRunning && this.turns[at]?.id === "") at += 1;
    const turn = this.add(newMessages(messages ?? [], answer?.metadata), at); // null: the client of the chat keeps them
    turn.id = id;
    turn.isBranch = history === "given";
    turn.isAdded = history === "added";
    turn.after = turn.isBranch ? parentOf(answer?.metadata) : null;
    turn.isComplete = Boolean(messages && answer);
    if (isRunning) turn.read(url);
    else if (answer) turn.fillFrom(answer, isUrgent);
    else turn.fail("This answer is no longer stored.", "", false);
    return turn;
  }

  /** Adds a turn at a place among the others; without `at`, as the last one. */
  add(messages, at = this.turns.length) {
    const isLast = (turn) => turn === this.last;
    const turn = new Turn(messages, {
      state: (of, note) => this.stateChanged(of, note),
      counted: (of) => isLast(of) && this.on.counted(),
      retry: (of) => this.on.retry(of),
      regenerate: (of) => this.on.regenerate(of),
      edit: (of, message, shown) => this.on.edit(of, message, shown),
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

  stateChanged(turn, note) {
    if (turn === this.last) this.on.state(turn, note);
    if (!turn.isLive) this.arrange();
  }
}

/** Returns true if the page has all that was before a turn, and the model would see it. */
function isReplaceable(turn, { path, isWhole }) {
  if (turn.isRefused) return !turn.after || path.some(({ id }) => id === turn.after);
  return isWhole && path.includes(turn) && isAskable(turn);
}

/** Returns true if the gateway has the question of a turn. Answers among the messages are of other programs, which
 *  alone know what was before. */
function isAskable({ id, messages }) {
  return id !== "" && messages.length > 0 && messages.every(({ role }) => role !== "assistant");
}
