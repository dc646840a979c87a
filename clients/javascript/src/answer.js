// The answer of a stream as far as it was read.

/** @import { Call, DoneEvent, ErrorEvent, HeadraceEvent } from "./events.js" */

import { HeadraceError } from "./errors.js";

/** Parts of one answer. A reset empties them: only the attempt that is read counts. */
export class Answer {
  text = "";
  reasoning = "";
  refusal = "";
  /** Whole tool calls. @type {Call[]} */
  toolCalls = [];
  /** The whole JSON answer, if there is one. @type {any} */
  json = null;
  provider = "";
  model = "";
  /** The failure of the answer. @type {ErrorEvent | null} */
  error = null;
  /** The end of the answer. @type {DoneEvent | null} */
  done = null;

  /** Throws a HeadraceError if the answer failed. */
  throwForError() {
    if (!this.error) return;
    throw new HeadraceError(this.error.code, this.error.message, { retryable: this.error.retryable });
  }

  /** Adds an event that was read, and returns it. @protected @param {HeadraceEvent} event @returns {HeadraceEvent} */
  take(event) {
    switch (event.type) {
      case "reset":
        Object.assign(this, { text: "", reasoning: "", refusal: "", toolCalls: [], json: null, error: null });
      // falls through
      case "start":
        this.provider = event.provider;
        this.model = event.model;
        break;
      case "token":
        this.text += event.token;
        break;
      case "reasoning":
      case "refusal":
        this[event.type] += event.text;
        break;
      case "tool_call":
        if (event.complete) this.#addCall(event);
        break;
      case "json":
        if (event.path.length === 0) this.json = event.value;
        break;
      case "error":
        this.error = event;
        break;
      case "done":
        this.done = event;
    }
    return event;
  }

  /** @param {import("./events.js").ToolCallEvent} event */
  #addCall({ id = "", name = "", arguments: given }) {
    this.toolCalls = [...this.toolCalls, { id, type: "function", function: { name, arguments: given } }];
  }
}
