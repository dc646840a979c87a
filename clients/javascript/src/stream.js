// One answer, read over as many connections as needed.

import { Answer } from "./answer.js";
import { Calls, failure } from "./calls.js";
import { Reading } from "./reading.js";
import { unreachable } from "./responses.js";
import { pause } from "./retries.js";

/** @import { StreamAddress } from "./addresses.js" */
/** @import { HeadraceEvent, StreamStatus } from "./events.js" */
/** @import { Retry } from "./retries.js" */

/**
 * @typedef {object} StreamOptions
 * @property {AbortSignal} [signal]  stops the start and the reading; the answer itself continues at the gateway
 * @property {string} [lastEventId]  only the events after this one come
 * @property {() => void} [onOpen]  called for each connection that is open
 * @property {(retry: Retry) => void} [onRetry]  called before each retry
 */

/**
 * One answer. Iterate over it for its events; its parts grow with them. The iteration ends after `done`. If you leave
 * it earlier, its connection is closed, and a new iteration continues after the last event.
 */
export class HeadraceStream extends Answer {
  /** Resolves once the stream has its id. @type {Promise<{ id: string, url: string }>} */
  started;
  /** @type {StreamAddress | null} */
  #address = null;
  #calls;
  #options;
  #reading;
  #addressed;

  /**
   * @param {Calls} calls
   * @param {StreamAddress | Promise<StreamAddress>} address
   * @param {StreamOptions} options
   * @param {import("./reading.js").Parse} parse
   */
  constructor(calls, address, options, parse) {
    super();
    this.#calls = calls;
    this.#options = options;
    this.#reading = new Reading(calls.retryTimeoutMs, options.lastEventId ?? "", parse);
    if (!(address instanceof Promise)) this.#address = address;
    this.#addressed = Promise.resolve(address).then((found) => (this.#address = found));
    this.started = this.#addressed.then(({ id, streamUrl }) => ({ id, url: streamUrl }));
    this.started.catch(() => {}); // the iteration throws it too; nobody has to wait for both
  }

  /** The id; empty until `started`. */
  get id() {
    return this.#address?.id ?? "";
  }

  /** The URL for other readers; empty until `started`. It may contain a ticket, a credential for this stream. */
  get url() {
    return this.#address?.streamUrl ?? "";
  }

  /** The cursor after the last event. Save it for `attach` in another page or process. */
  get lastEventId() {
    return this.#reading.lastEventId;
  }

  [Symbol.asyncIterator]() {
    return this.events();
  }

  /**
   * The events, like the iteration, with a signal of its own: it can be stopped and begun again.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {AsyncGenerator<HeadraceEvent, void, undefined>}
   */
  async *events({ signal = this.#options.signal } = {}) {
    const address = await this.#addressed;
    const reading = this.#reading;
    while (!reading.hasEnded) {
      let error;
      try {
        yield* this.#connection(address, signal);
        error = unreachable();
      } catch (thrown) {
        error = failure(thrown, signal);
      }
      if (reading.hasEnded) return;
      if (reading.isComplete) {
        yield this.take(reading.endBy(await this.status({ signal })));
        return;
      }
      const retry = reading.retries.next(error);
      this.#options.onRetry?.(retry);
      await pause(retry.delayMs, signal);
    }
  }

  /**
   * Stops the answer at the provider. The stream then ends with `done`.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<void>}
   */
  async cancel({ signal } = {}) {
    const address = await this.#addressed;
    const requests = address.cancelUrls.map((url) => this.#request("POST", url, {}, false));
    await this.#calls.callFirstAllowed(requests, { signal });
  }

  /**
   * The answer so far, as the gateway has it.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<StreamStatus>}
   */
  async status({ signal } = {}) {
    const address = await this.#addressed;
    return this.#calls.call(this.#request("GET", address.statusUrl, {}, address.hasTicket), { signal });
  }

  /**
   * Reads to the end, and returns the whole answer.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<StreamStatus>}
   */
  async wait({ signal = this.#options.signal } = {}) {
    for await (const _ of this.events({ signal }));
    return this.status({ signal });
  }

  /**
   * The events of one connection. Throws if it is refused or breaks.
   * @param {StreamAddress} address
   * @param {AbortSignal | undefined} signal
   * @returns {AsyncGenerator<HeadraceEvent, void, undefined>}
   */
  async *#connection(address, signal) {
    const reading = this.#reading;
    const request = this.#request("GET", address.streamUrl, reading.headers(), address.hasTicket);
    const connection = this.#calls.connect(request, signal);
    try {
      const response = await connection.open();
      if (!reading.isStream(response.status, response.headers)) {
        return reading.refuse(response.status, response.headers, await connection.text());
      }
      this.#options.onOpen?.();
      for await (const piece of connection.pieces()) {
        for (const event of reading.feed(piece)) {
          yield this.take(event);
          if (signal?.aborted) throw signal.reason;
        }
        if (reading.hasEnded) return;
      }
    } finally {
      connection.close();
    }
  }

  /** @param {string} method @param {string} url @param {Record<string, string>} headers @param {boolean} byTicket */
  #request(method, url, headers, byTicket) {
    return { method, url, headers: { ...(byTicket ? {} : this.#calls.gateway.headers(url)), ...headers } };
  }
}
