// Decoder of server-sent events, from bytes to frames, without I/O. EventSource does not fit: it sends neither a POST
// nor a key, gives up for good on a proxy's 502, and ignores a `retry:` without a blank line, which a draining gateway
// sends last.

/** @typedef {{ name: string, data: string, id: string | null }} Frame  `id` is null for an event without its own id */

/** Decoder of one connection. Lines end with LF or CRLF. An event without its final blank line is dropped. */
export class SseDecoder {
  /** @type {number | null} */
  retryMs = null;
  /** Number of comments. */
  heartbeats = 0;
  #text = new TextDecoder();
  #rest = "";
  #name = "";
  /** @type {string[]} */
  #data = [];
  /** @type {string | null} */
  #id = null;

  /**
   * Yields the frames that `bytes` complete.
   * @param {Uint8Array} bytes
   * @returns {Generator<Frame, void, undefined>}
   */
  *feed(bytes) {
    const lines = (this.#rest + this.#text.decode(bytes, { stream: true })).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const frame = this.#take(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (frame) yield frame;
    }
  }

  /** @param {string} line @returns {Frame | null} */
  #take(line) {
    if (!line) return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (field === "") this.heartbeats += 1;
    else if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]{1,9}$/.test(value)) this.retryMs = Number(value);
    return null;
  }

  /** @returns {Frame | null} */
  #dispatch() {
    const frame = { name: this.#name || "message", data: this.#data.join("\n"), id: this.#id || null };
    const isEmpty = this.#data.length === 0;
    this.#name = "";
    this.#data = [];
    this.#id = null;
    return isEmpty ? null : frame;
  }
}
