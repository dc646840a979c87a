// Delays between retries.

import { HeadraceError } from "./errors.js";

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 5000;
const JITTER = 0.25;
const LONGEST_TRY_MS = 90_000; // no try takes longer

/** @typedef {{ error: HeadraceError, delayMs: number, attempt: number }} Retry  `attempt` is 1 after each progress */

/** Exponential backoff with jitter and a total time. The jitter keeps clients apart that lost their connections
 *  together. */
export class Retries {
  firstDelayMs = FIRST_DELAY_MS;
  #totalMs;
  #failures = 0;
  #expiresAt = 0;
  #nextAt = 0;

  /** @param {number} totalMs */
  constructor(totalMs) {
    this.#totalMs = totalMs;
  }

  /** Starts again with the shortest delay and the whole time, after progress. */
  reset() {
    this.#failures = 0;
  }

  /**
   * Returns the next retry. Throws `error` if it is final, or if the time is over, or would be over before the server's
   * `Retry-After`.
   * @param {HeadraceError} error
   * @returns {Retry}
   */
  next(error) {
    if (!error.retryable) throw error;
    const now = performance.now();
    if (this.#failures === 0) this.#expiresAt = now + this.#totalMs;
    else if (now - this.#nextAt > LONGEST_TRY_MS) this.#expiresAt += now - this.#nextAt; // the machine was asleep
    const left = this.#expiresAt - now;
    const least = error.retryAfterMs ?? 0;
    if (left <= 0 || least > left) throw this.#afterRetries(error);
    let delayMs = this.#backoffMs();
    this.#failures += 1;
    if (least) delayMs = Math.max(delayMs, least * (1 + Math.random() * JITTER));
    delayMs = Math.min(delayMs, Math.max(left, least));
    this.#nextAt = now + delayMs;
    return { error, delayMs, attempt: this.#failures };
  }

  #backoffMs() {
    const jitter = 1 - JITTER + 2 * JITTER * Math.random();
    if (this.#failures === 0) return this.firstDelayMs * jitter;
    const longer = Math.max(this.firstDelayMs, 100) * 2 ** Math.min(this.#failures, 16);
    return Math.min(longer, Math.max(LONGEST_DELAY_MS, this.firstDelayMs)) * jitter;
  }

  /** @param {HeadraceError} error */
  #afterRetries(error) {
    const { code, message, retryable, status, retryAfterMs, cause } = error;
    const spent = `gave up after ${this.#totalMs / 1000} s: ${message}`;
    return new HeadraceError(code, spent, { retryable, status, retryAfterMs, cause });
  }
}

/**
 * Waits; rejects with the signal's reason if it aborts.
 * @param {number} ms
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
