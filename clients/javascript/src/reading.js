// Rules for reading one stream to its end over as many connections as needed, without I/O.
//
// The cursor is the id of the last event that was handed out. A connection that ends before `done` never ends the
// answer, however it ends and with whatever error: the next one continues after the cursor.

import { HeadraceError } from "./errors.js";
import { failureOf, notHeadrace, unreachable } from "./responses.js";
import { Retries } from "./retries.js";
import { SseDecoder } from "./sse.js";

/** @import { HeadraceEvent } from "./events.js" */
/** @typedef {(text: string, type: string) => any} Parse */

const STREAM = "text/event-stream";

/** Progress of one reader. */
export class Reading {
  hasEnded = false;
  /** The gateway has nothing after the cursor: the answer has ended, and its `done` was read before. */
  isComplete = false;
  /** @type {string} */
  lastEventId;
  /** @type {Retries} */
  retries;
  #hasConnected = false;
  #decoder = new SseDecoder();
  /** @type {Parse} */
  #parse;

  /**
   * @param {number} retryTimeoutMs
   * @param {string} lastEventId
   * @param {Parse} parse
   */
  constructor(retryTimeoutMs, lastEventId, parse) {
    this.retries = new Retries(retryTimeoutMs);
    this.lastEventId = lastEventId;
    this.#parse = parse;
  }

  /** Headers of the next request. @returns {Record<string, string>} */
  headers() {
    return { Accept: "text/event-stream", ...(this.lastEventId ? { "Last-Event-ID": this.lastEventId } : {}) };
  }

  /**
   * Begins a connection. Returns false if its response is not a stream; `refuse` has the reason.
   * @param {number} status
   * @param {Headers} headers
   */
  isStream(status, headers) {
    if (status !== 200 || !headers.get("content-type")?.startsWith(STREAM)) return false;
    this.#hasConnected = true;
    this.#decoder = new SseDecoder();
    return true;
  }

  /**
   * Ends a connection whose response is no stream. Throws its failure, unless the answer is complete.
   * @param {number} status
   * @param {Headers} headers
   * @param {string} body
   */
  refuse(status, headers, body) {
    if (status === 204) this.isComplete = true;
    else if (status !== 200) throw failureOf(status, headers, body);
    // Chromium takes a head that breaks off as whole, so the type may be missing or cut. And once the stream was read
    // here, another server's page is a passing fault of a proxy.
    else if (this.#hasConnected || STREAM.startsWith(headers.get("content-type") ?? "")) throw unreachable();
    else throw notHeadrace(status);
  }

  /**
   * Yields the events that `bytes` complete, and moves the cursor with each.
   * @param {Uint8Array} bytes
   * @returns {Generator<HeadraceEvent, void, undefined>}
   */
  *feed(bytes) {
    const decoder = this.#decoder;
    const { heartbeats } = decoder;
    try {
      for (const frame of decoder.feed(bytes)) {
        const event = eventOf(frame, this.#parse);
        this.retries.reset();
        this.lastEventId = event.eventId || this.lastEventId;
        this.hasEnded = event.type === "done";
        yield event;
        if (this.hasEnded) return;
      }
    } finally {
      // A heartbeat proves that the gateway reads the stream. Otherwise a model that thinks for long behind a proxy
      // that cuts every minute would exhaust the retries.
      if (decoder.heartbeats !== heartbeats) this.retries.reset();
      if (decoder.retryMs !== null) this.retries.firstDelayMs = decoder.retryMs;
    }
  }

  /**
   * The end of a stream by its status, for a reader that already had all of its events. Every reading ends with `done`.
   * @param {Record<string, any>} status
   * @returns {HeadraceEvent}
   */
  endBy(status) {
    this.hasEnded = true;
    const { finish_reason = "stop", reason = null, usage = null, cost = null } = status;
    return { type: "done", eventId: null, finish_reason, reason, usage, cost };
  }
}

/**
 * @param {import("./sse.js").Frame} frame
 * @param {Parse} parse
 * @returns {HeadraceEvent}
 */
function eventOf({ name, data, id }, parse) {
  let parsed = null;
  try {
    parsed = parse(data, name);
  } catch {
    // reported below
  }
  if (typeof parsed !== "object" || parsed === null) {
    const message = `event ${JSON.stringify(name.slice(0, 50))}: not in the format of the protocol`;
    throw new HeadraceError("invalid_event", message, { retryable: false, status: 200 });
  }
  return { ...parsed, type: name === "start" && parsed.reset ? "reset" : name, eventId: id };
}
