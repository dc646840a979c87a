// HTTP of the client: requests that are repeated until their response is final, and connections of streams.

import { Gateway } from "./addresses.js";
import { HeadraceError } from "./errors.js";
import { failureOf, notHeadrace, unreachable } from "./responses.js";
import { pause, Retries } from "./retries.js";

/** A gateway sends a heartbeat every 15 s; a connection without data for much longer is dead. */
const IDLE_MS = 60_000;

/** @typedef {{ method: string, url: string, headers: Record<string, string>, body?: string }} CallRequest */
/** @typedef {{ signal?: AbortSignal, onRetry?: (retry: import("./retries.js").Retry) => void }} CallOptions */

/** Connections to one gateway. */
export class Calls {
  /** @type {Gateway} */
  gateway;
  /** @type {number} */
  retryTimeoutMs;
  #fetch;

  /** @param {Gateway} gateway @param {number} retryTimeoutMs @param {typeof fetch | undefined} ownFetch */
  constructor(gateway, retryTimeoutMs, ownFetch) {
    this.gateway = gateway;
    this.retryTimeoutMs = retryTimeoutMs;
    this.#fetch = ownFetch ?? ((/** @type {string} */ url, /** @type {RequestInit} */ init) => globalThis.fetch(url, init));
  }

  /**
   * Sends a request until its response is final, and returns its JSON.
   * @param {CallRequest} request
   * @param {CallOptions} options
   * @returns {Promise<any>}
   */
  async call(request, { signal, onRetry } = {}) {
    const retries = new Retries(this.retryTimeoutMs);
    for (;;) {
      let retry;
      try {
        return await this.#once(request, signal);
      } catch (error) {
        retry = retries.next(failure(error, signal));
      }
      onRetry?.(retry);
      await pause(retry.delayMs, signal);
    }
  }

  /**
   * Sends the requests in their order until one is not forbidden.
   * @param {CallRequest[]} requests
   * @param {CallOptions} options
   */
  async callFirstAllowed(requests, options) {
    for (const [at, request] of requests.entries()) {
      try {
        return await this.call(request, options);
      } catch (error) {
        const isForbidden = error instanceof HeadraceError && (error.status === 401 || error.status === 403);
        if (!isForbidden || at === requests.length - 1) throw error;
      }
    }
  }

  /** @param {CallRequest} request @param {AbortSignal | undefined} signal */
  async #once(request, signal) {
    const connection = this.connect(request, signal);
    try {
      const response = await connection.open();
      const body = await connection.text();
      if (!response.ok) throw failureOf(response.status, response.headers, body);
      return jsonOf(response.status, body);
    } finally {
      connection.close();
    }
  }

  /** @param {CallRequest} request @param {AbortSignal | undefined} signal */
  connect(request, signal) {
    return new Connection(this.#fetch, request, signal);
  }
}

/** One request and its response. Its errors are `unreachable` or the signal's reason, whatever `fetch` throws. */
export class Connection {
  #abort = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Response | undefined} */
  #response;
  #fetch;
  #request;
  #signal;

  /** @param {any} fetch @param {CallRequest} request @param {AbortSignal | undefined} signal */
  constructor(fetch, request, signal) {
    this.#fetch = fetch;
    this.#request = request;
    this.#signal = signal;
  }

  /** @returns {Promise<Response>} */
  async open() {
    const { url, ...init } = this.#request;
    if (this.#signal?.aborted) throw this.#signal.reason;
    this.#signal?.addEventListener("abort", this.close, { once: true });
    /** @type {Response} */
    const response = await this.#wait(this.#fetch(url, { ...init, cache: "no-store", signal: this.#abort.signal }));
    this.#response = response;
    return response;
  }

  /** The rest of the response as text. @returns {Promise<string>} */
  text() {
    return this.#wait(/** @type {Response} */ (this.#response).text());
  }

  /** The pieces of the response. @returns {AsyncGenerator<Uint8Array, void, undefined>} */
  async *pieces() {
    const reader = this.#response?.body?.getReader();
    if (!reader) return;
    for (;;) {
      const { done, value } = await this.#wait(reader.read());
      if (done) return;
      yield value;
    }
  }

  close = () => {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.close);
    this.#abort.abort();
  };

  /** @template T @param {Promise<T>} step @returns {Promise<T>} */
  async #wait(step) {
    this.#timer = setTimeout(() => this.#abort.abort(), IDLE_MS);
    try {
      const result = await step;
      // It may have been stopped since: another reading may already continue from the same cursor.
      if (this.#signal?.aborted) throw this.#signal.reason;
      return result;
    } catch (error) {
      throw this.#signal?.aborted ? this.#signal.reason : unreachable(error);
    } finally {
      clearTimeout(this.#timer);
    }
  }
}

/**
 * Returns an error that may be retried or final; throws any other, such as the signal's reason.
 * @param {unknown} error
 * @param {AbortSignal | undefined} signal
 * @returns {HeadraceError}
 */
export function failure(error, signal) {
  if (signal?.aborted || !(error instanceof HeadraceError)) throw error;
  return error;
}

/** @param {number} status @param {string} body */
function jsonOf(status, body) {
  if (!body) throw unreachable(); // Chromium takes a head that breaks off as whole, without a body
  try {
    const parsed = JSON.parse(body);
    if (typeof parsed === "object" && parsed !== null) return parsed;
  } catch {
    // another server's page
  }
  throw notHeadrace(status);
}
