// Reader of one stream, over as many connections as necessary. It delivers each event once.
//
// EventSource reconnects by itself when a connection breaks, and then sends its last id as a header. But it gives up
// for good (CLOSED) on any status other than 200, such as a load balancer's 502, and does not report that status. Then,
// and after every close of ours, a *new* EventSource resumes from the cursor, which only its URL can carry.

import { chatStatus, isTransient, pause, probe } from "./api.js";
import { parse } from "./exact.js";

const EVENTS = ["start", "token", "reasoning", "refusal", "tool_call", "json"]; // each has a handler of the same name
const TYPES = [...EVENTS, "queued", "done"]; // and "error", which EventSource also uses for its own event
const UNREADABLE = {
  401: "The link to this stream has expired. The stream can no longer be read here.",
  403: "The link to this stream is not valid here.",
  404: "This stream no longer exists.",
  410: "This stream was deleted, or its retention has ended.",
};
const MAX_WAIT_MS = 10_000;

export class StreamReader {
  /** `on`: state(name); queued, reset, error, done and EVENTS, each with the event's data; lost(message) when the
   *  stream can never be read again; counted() whenever one of the counts below has changed. */
  constructor({ streamUrl, statusUrl }, on) {
    this.url = streamUrl;
    this.statusUrl = statusUrl;
    this.on = on;
    this.cursor = "";
    this.ended = false;
    this.connections = 0;
    this.events = 0;
    this.duplicates = 0;
    this.seen = new Set();
    this.started = false;
    this.failures = 0;
    this.source = null;
    this.round = 0; // grows with every close, so that pending work for an earlier connection can detect it
  }

  /** Resumes from the cursor over a new connection. */
  open() {
    this.close();
    if (this.ended) return;
    const source = new EventSource(this.address());
    this.source = source;
    source.onopen = () => this.opened(source);
    for (const type of TYPES) source.addEventListener(type, (event) => this.received(source, event));
    // The stream's own "error" event is a message with data; a connection that broke is not.
    source.addEventListener("error", (event) =>
      event instanceof MessageEvent ? this.received(source, event) : this.broken(source),
    );
  }

  close() {
    this.round += 1;
    this.source?.close();
    this.source = null;
  }

  /** Simulates a lost network; there is no reconnect until open() is called. */
  cut() {
    this.close();
    if (!this.ended) this.on.state("reconnecting");
  }

  address() {
    const url = new URL(this.url, location.href);
    if (this.cursor) url.searchParams.set("last_event_id", this.cursor);
    return url.href;
  }

  opened(source) {
    if (source !== this.source) return;
    this.connections += 1;
    this.on.counted();
    this.on.state(this.started ? "streaming" : "queued");
  }

  received(source, event) {
    if (source !== this.source || this.ended) return;
    const data = event.type === "json" ? parse(event.data) : JSON.parse(event.data);
    const resets = event.type === "start" && data.reset;
    if (resets) this.seen.clear();
    this.failures = 0;
    if (event.type === "queued") return this.on.queued(data);
    if (this.isDuplicate(event)) return;
    this.started = true;
    if (resets) this.on.reset(data);
    if (event.type === "done") this.finish(data);
    else {
      this.on.state("streaming");
      this.on[event.type](data);
    }
  }

  /** Counts the event and moves the cursor. A frame without an id of its own (stream_lost) shows the previous id with
   *  another type; that is not a duplicate. */
  isDuplicate({ type, lastEventId: id }) {
    const key = `${id} ${type}`;
    const duplicate = id !== "" && this.seen.has(key);
    this.seen.add(key);
    this.events += 1;
    if (duplicate) this.duplicates += 1;
    if (id) this.cursor = id;
    this.on.counted();
    return duplicate;
  }

  finish(done) {
    this.ended = true;
    this.close(); // otherwise EventSource would reconnect again and again
    this.on.done(done);
  }

  lose(message) {
    this.ended = true;
    this.close();
    this.on.lost(message);
  }

  broken(source) {
    if (source !== this.source) return;
    this.on.state("reconnecting");
    if (source.readyState === EventSource.CLOSED) this.recover();
  }

  /** EventSource has given up: finds out why, and resumes unless the reason is final. */
  async recover() {
    this.close();
    const round = this.round;
    const isStale = () => round !== this.round || this.ended;
    const { status, message } = await probe(this.address());
    if (isStale()) return;
    if (status === 204) {
      const whole = await chatStatus(this.statusUrl);
      if (!isStale()) this.finish({ finish_reason: whole?.finish_reason ?? "stop", reason: null, usage: whole?.usage ?? null });
      return;
    }
    if (!isTransient(status)) return this.lose(UNREADABLE[status] ?? message);
    this.failures += 1;
    if (status !== 200 || this.failures > 1) await pause(this.backoff());
    if (!isStale()) this.open();
  }

  backoff() {
    return Math.min(500 * 2 ** (this.failures - 1), MAX_WAIT_MS) * (0.75 + Math.random() / 2);
  }
}
