// Reader of one stream for the page. The client library has the rules of resuming; here are the words of the page, and
// the counts that show that no event comes twice.

import { reading } from "./api.js";
import { currentKey, promptForKey } from "./key.js";
import { SilenceWatch } from "./waiting.js";

const SHOWN = new Set(["start", "token", "reasoning", "refusal", "tool_call", "json", "error"]); // each has a handler
const UNREADABLE = {
  401: "The link to this stream has expired. The stream can no longer be read here.",
  403: "The link to this stream is not valid here.",
  404: "This stream no longer exists.",
  410: "This stream was deleted, or its retention has ended.",
};

export class StreamReader {
  /** `on`: state(name); silent() after 3 s without an event; queued, waiting, reset, error, done and SHOWN, each with
   *  the event; lost(message) when the stream can never be read again; counted() whenever one of the counts below has changed. */
  constructor(streamUrl, on) {
    this.stream = reading.attach(streamUrl, {
      onOpen: () => this.opened(),
      onRetry: () => {
        this.silence.stop();
        this.on.state("reconnecting");
      },
    });
    this.hasTicket = streamUrl.includes("ticket=");
    this.on = on;
    this.ended = false;
    this.connections = 0;
    this.events = 0;
    this.duplicates = 0;
    this.seen = new Set();
    this.started = false;
    this.stop = null;
    this.silence = new SilenceWatch(() => this.on.silent());
  }

  /** The id of the last event. */
  get cursor() {
    return this.stream.lastEventId;
  }

  /** Resumes from the cursor over a new connection. */
  open() {
    this.close();
    if (this.ended) return;
    this.stop = new AbortController();
    this.read(this.stop.signal);
  }

  close() {
    this.silence.stop();
    this.stop?.abort();
    this.stop = null;
  }

  /** Simulates a lost network; there is no reconnect until open() is called. */
  cut() {
    this.close();
    if (!this.ended) this.on.state("reconnecting");
  }

  async read(signal) {
    const key = currentKey();
    try {
      for await (const event of this.stream.events({ signal })) this.received(event);
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 && !this.hasTicket) {
        await promptForKey(error.message, key);
        if (!signal.aborted) this.open();
      } else this.lose(UNREADABLE[error.status] ?? error.message);
    }
  }

  opened() {
    this.connections += 1;
    this.on.counted();
    this.on.state(this.started ? "streaming" : "queued");
    if (this.started) this.silence.heard();
  }

  received(event) {
    const { type } = event;
    if (type === "queued") return this.on.queued(event);
    if (type === "waiting") {
      this.silence.stop(); // the gateway has said why
      return this.on.waiting(event);
    }
    if (type === "reset") this.seen.clear();
    if (this.isDuplicate(event)) return;
    this.started = true;
    if (type === "reset") {
      this.on.reset(event);
      this.on.start(event);
    }
    if (type === "done") return this.finish(event);
    this.silence.heard();
    this.on.state("streaming");
    if (SHOWN.has(type)) this.on[type](event);
  }

  /** Counts the event. */
  isDuplicate({ type, eventId }) {
    const key = `${eventId} ${type}`;
    const duplicate = eventId !== null && this.seen.has(key);
    this.seen.add(key);
    this.events += 1;
    if (duplicate) this.duplicates += 1;
    this.on.counted();
    return duplicate;
  }

  finish(done) {
    this.silence.stop();
    this.ended = true;
    this.on.done(done);
  }

  lose(message) {
    this.silence.stop();
    this.ended = true;
    this.on.lost(message);
  }
}
