// One turn of a chat: the messages of its request, and the answer, which is read live until it ends.

import { cancelStream, startChat } from "./api.js";
import { Answer } from "./answer.js";
import { element, smallButton } from "./dom.js";
import { isJson } from "./format.js";
import { later } from "./later.js";
import { fill } from "./past_answer.js";
import { Placement } from "./placement.js";
import { messageElement } from "./question.js";
import { StreamReader } from "./stream.js";
import { describeQueue, describeWaiting } from "./waiting.js";

const FINAL = new Set(["done", "error", "cancelled"]);
const FORGOTTEN = new Set(["chat_not_found", "chat_gone"]); // codes of the gateway
const ENDINGS = { completed: "done", failed: "error", cancelled: "cancelled" };

/** Returns true if the same request may be accepted later. */
const mayHelp = (status) => !status || status === 408 || status === 409 || status === 429 || status >= 500;

export class Turn {
  /** `on`: state(turn, note), counted(turn), retry(turn), edit(turn, message, element), rendered(). `messages` may be
   *  empty. */
  constructor(messages, on) {
    this.messages = messages;
    this.on = on;
    this.after = null; // id of the turn that this one follows, if it has replaced others; "": it begins the chat
    this.isBranch = false; // it came with its whole conversation
    this.isAdded = false; // the gateway put turns before it
    this.isComplete = true; // the page has all messages, and will have the answer
    this.stored = null; // the answer as the gateway keeps it
    this.calls = []; // complete tool calls
    this.reader = null;
    this.wantsStop = false;
    this.isListed = false; // the gateway has listed it among the turns of its chat
    this.isClosed = false; // another chat is on the screen
    this.hasFailed = false;
    this.state = "";
    this.answer = new Answer(() => on.rendered());
    this.element = element("section", "turn");
    this.placement = new Placement(this.element);
    const edit = (message) => (shown) => this.on.edit(this, message, shown);
    this.element.append(...messages.map((each) => messageElement(each, edit(each))), this.answer.element);
    this.again = smallButton("Regenerate");
    this.again.addEventListener("click", () => this.on.regenerate(this));
    this.answer.copy.before(this.again);
    this.again.hidden = true;
    this.show("queued");
  }

  /** The stream's id; empty until the gateway has accepted the request. */
  get id() {
    return this.element.dataset.stream ?? "";
  }

  set id(id) {
    this.element.dataset.stream = id;
  }

  get isLive() {
    return !FINAL.has(this.state);
  }

  /** The gateway has not accepted the request, and will not. */
  get isRefused() {
    return !this.id && this.state === "error";
  }

  /** Shows where the turn stands in its chat, and what can be done with it, see {@link Placement}. */
  place(placement) {
    const mayRetry = !this.answer.problem.hidden && this.answer.problem.querySelector("button");
    this.again.hidden = !placement.canRegenerate || Boolean(mayRetry);
    this.placement.show(placement);
  }

  /** Sends the request. Resolves with true once the gateway has accepted it. */
  async submit(body) {
    if (isJson(body)) this.answer.showAsJson();
    try {
      const stream = await startChat(body, (problem) => this.show("queued", `${problem} (retrying)`));
      this.id = stream.id;
      if (!this.isClosed) this.read(stream.url);
    } catch (error) {
      const isForgotten = FORGOTTEN.has(error.code);
      const why = isForgotten ? "The gateway no longer has this chat. Ask in a new one." : error.message;
      this.fail("The request could not be sent.", why, !isForgotten && mayHelp(error.status));
      return false;
    }
    if (this.wantsStop) this.stopAtGateway();
    return true;
  }

  /** Reads the answer from its start. */
  read(streamUrl) {
    const { answer } = this;
    this.reader = new StreamReader(streamUrl, {
      counted: () => this.on.counted(this),
      state: (name) => this.show(name),
      queued: ({ position }) => this.show("queued", position ? describeQueue(position, null) : ""),
      waiting: (event) => this.show(...describeWaiting(event)),
      silent: () => this.show("waiting", "no new text for 3 seconds"),
      start: (start) => answer.setSource(start),
      reset: ({ attempt }) => {
        answer.reset();
        this.calls = [];
        this.show("streaming", `attempt ${attempt}: another worker restarts the answer`);
      },
      token: ({ token }) => answer.append(token),
      reasoning: ({ text }) => answer.reasoning.append(text),
      refusal: ({ text }) => answer.refusal.append(text),
      tool_call: (call) => this.takeCall(call),
      json: (piece) => answer.setValue(piece),
      error: ({ code, message, retryable }) => this.showProblem(message, code, retryable),
      done: (done) => this.settle(done),
      lost: (message) => this.fail("The stream cannot be read.", message, false),
    });
    this.on.state(this);
    this.reader.open();
  }

  /** Shows an answer that has ended; its formatting may come later. */
  fillFrom(status, isUrgent) {
    const { answer } = this;
    this.stored = status;
    answer.problem.removeAttribute("role"); // it is no news
    if (status.error) this.showProblem(status.error.message, status.error.code, status.error.retryable);
    answer.element.classList.remove("live");
    this.show(ENDINGS[status.status] ?? "done");
    if (isUrgent) return fill(answer, status);
    answer.view.preview(status.text);
    later(() => {
      answer.view.reset();
      fill(answer, status);
    });
  }

  takeCall(call) {
    this.answer.calls.take(call);
    const { id, name, arguments: text } = call;
    if (call.complete) this.calls.push({ id, type: "function", function: { name, arguments: text } });
  }

  close() {
    this.reader?.close();
  }

  /** Stops reading for good. The answer continues at the gateway. */
  leave() {
    this.isClosed = true;
    this.close();
  }

  /** Resolves with false if the gateway did not accept it. */
  async stop() {
    if (this.id) return this.stopAtGateway();
    this.wantsStop = true;
    return true;
  }

  /** Cancels the stream; its `done` event then ends the answer. */
  async stopAtGateway() {
    try {
      await cancelStream(this.id);
      return true;
    } catch (error) {
      this.show(this.state, `could not stop: ${error.message}`);
      return false;
    }
  }

  settle(done) {
    const state = { cancelled: "cancelled", error: "error" }[done.finish_reason] ?? "done";
    if (state === "error" && !this.hasFailed) this.answer.fail("The answer failed.", done.reason ?? "");
    this.answer.finish(done);
    this.show(state);
    this.on.ended?.(this, done);
  }

  showProblem(title, detail, mayRetry) {
    this.hasFailed = true;
    this.answer.fail(title, detail, mayRetry && this.messages.length > 0 && (() => this.on.retry(this)));
  }

  /** Shows a problem after which nothing more can be read. */
  fail(title, detail, mayRetry) {
    this.showProblem(title, detail, mayRetry);
    this.answer.finish(null);
    this.show("error");
  }

  /** Without `note`, a state that is already shown keeps its note. */
  show(state, note) {
    if (this.state === state && note === undefined) return;
    this.state = state;
    this.element.dataset.state = state;
    this.on.state(this, note);
  }
}
