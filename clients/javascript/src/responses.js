// Meaning of the gateway's responses.

import { HeadraceError } from "./errors.js";

const RETRYABLE = new Set([408, 425, 429, 500, 502, 503, 504]);
const LONGEST_MESSAGE = 500; // an error text of another server may be a whole page

/**
 * The error of an unsuccessful response: the gateway's own, or that of a proxy before it.
 * @param {number} status
 * @param {Headers} headers
 * @param {string} body
 */
export function failureOf(status, headers, body) {
  let [code, message, retryable] = [`http_${status}`, `HTTP ${status}`, RETRYABLE.has(status) || status < 200];
  try {
    const { error } = JSON.parse(body);
    if (typeof error.code === "string" && typeof error.message === "string") {
      [code, message, retryable] = [error.code, error.message, Boolean(error.retryable)];
    }
  } catch {
    // a proxy's page, not a gateway's response
  }
  const retryAfterMs = retryable ? retryAfterOf(headers.get("retry-after") ?? "") : null;
  return new HeadraceError(code, message.slice(0, LONGEST_MESSAGE), { retryable, status, retryAfterMs });
}

/** @param {number} status */
export function notHeadrace(status) {
  return new HeadraceError("not_headrace", "url: not a Headrace gateway; check the address", { retryable: false, status });
}

/**
 * A connection that failed or broke. The text of `cause` is not used: each engine has its own words for it.
 * @param {unknown} [cause]
 */
export function unreachable(cause) {
  return new HeadraceError("unreachable", "the connection failed or ended early", { retryable: true, cause });
}

/**
 * A `Retry-After` in milliseconds. It has seconds or a date; null if it has neither.
 * @param {string} value
 */
export function retryAfterOf(value) {
  if (/^[0-9]+$/.test(value)) return Number(value) * 1000;
  const moment = Date.parse(value);
  return Number.isNaN(moment) ? null : Math.max(0, moment - Date.now());
}
