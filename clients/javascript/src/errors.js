// The errors of this library. They contain neither a prompt nor a key, and no address with a ticket.

/**
 * A request that failed. `code` is stable and for machines, `message` is for people. `retryable`: the same request may
 * succeed later. The gateway's documentation of the protocol lists its codes. This library adds `unreachable`,
 * `not_headrace` (another server answered), `invalid_event` and `http_<status>` (an error page of a proxy).
 */
export class HeadraceError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ retryable: boolean, status?: number | null, retryAfterMs?: number | null, cause?: unknown }} options
   */
  constructor(code, message, { retryable, status = null, retryAfterMs = null, cause }) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "HeadraceError";
    /** @type {string} */
    this.code = code;
    /** @type {boolean} */
    this.retryable = retryable;
    /** The HTTP status, or null if there was no response. @type {number | null} */
    this.status = status;
    /** The server's `Retry-After`. @type {number | null} */
    this.retryAfterMs = retryAfterMs;
  }
}

/** A request that is not a webhook of the gateway, or is too old. Respond with 400 and do nothing else. */
export class WebhookInvalid extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "WebhookInvalid";
  }
}
