// Addresses of a gateway and of its streams, and the credentials that each may get.

const ID = /^[A-Za-z0-9_-]{1,128}$/;
const USER = /^[!-+\-.0-~]{1,128}$/;
const PATH = /^(.*)\/chat\/(?:stream\/)?([A-Za-z0-9_-]{1,128})$/;

/** A gateway. `base` has no slash at its end. */
export class Gateway {
  /** @type {string} */
  base;
  /** @type {string | null} */
  #key;
  /** @type {string | null} */
  #user;

  /** @param {string} url @param {string | null} [key] @param {string | null} [user] */
  constructor(url, key, user) {
    this.base = String(url).replace(/\/+$/, "");
    this.#key = key ?? null;
    this.#user = user ?? null;
    if (!isHttp(this.base)) {
      throw new TypeError("url: not an absolute http or https URL; use, for example, http://localhost:8000");
    }
    if (key != null) checkedHeader("key", key);
    if (user != null && !USER.test(user)) {
      const problem = "must have 1 to 128 visible ASCII characters without slash and comma; percent-encode others";
      throw new TypeError(`user: ${problem}`);
    }
  }

  /** Credentials for `url`. Another origin never gets the key. @param {string} url @returns {Record<string, string>} */
  headers(url) {
    if (new URL(url).origin !== new URL(this.base).origin) return {};
    /** @type {Record<string, string>} */
    const headers = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
    if (this.#user !== null) headers["X-Headrace-User"] = this.#user;
    return headers;
  }

  /** The address of a stream, from its id or from a URL with or without a ticket. @param {string} idOrUrl */
  stream(idOrUrl) {
    const text = String(idOrUrl);
    if (ID.test(text)) return new StreamAddress(this.base, text, "");
    const absolute = text.startsWith("/") ? this.base + text : text;
    const url = isHttp(absolute) ? new URL(absolute) : null;
    const [, prefix, id] = (url && PATH.exec(url.pathname)) ?? [];
    if (!url || id === undefined) {
      throw new TypeError("stream: neither an id nor the URL of a stream; use the stream_id or the stream_url");
    }
    return new StreamAddress(url.origin + prefix, id, url.searchParams.get("ticket") ?? "");
  }
}

/** A stream at a gateway. */
export class StreamAddress {
  #ticket;

  /** @param {string} base @param {string} id @param {string} ticket  the credential of a link, or empty */
  constructor(base, id, ticket) {
    this.base = base;
    this.id = id;
    this.#ticket = ticket;
  }

  get hasTicket() {
    return this.#ticket !== "";
  }

  get streamUrl() {
    return this.#withTicket(`${this.base}/chat/stream/${this.id}`);
  }

  get statusUrl() {
    return this.#withTicket(`${this.base}/chat/${this.id}`);
  }

  /** URLs to try in this order: the ticket of a link may be for reading only; then the key may cancel. */
  get cancelUrls() {
    const url = `${this.base}/chat/${this.id}/cancel`;
    return this.hasTicket ? [this.#withTicket(url), url] : [url];
  }

  /** @param {string} url */
  #withTicket(url) {
    return this.hasTicket ? `${url}?${new URLSearchParams({ ticket: this.#ticket })}` : url;
  }
}

/** A random key. `crypto.randomUUID` exists only over HTTPS and on localhost. */
export function newIdempotencyKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns `value` if a header may have it. The error does not show it; that of `fetch` would.
 * @param {string} name @param {string} value */
export function checkedHeader(name, value) {
  if (typeof value === "string" && /^[!-~]{0,8000}$/.test(value)) return value;
  throw new TypeError(`${name}: contains characters that no header may have; use printable ASCII without spaces`);
}

/** @param {string} text */
function isHttp(text) {
  return /^https?:\/\/[^/]/i.test(text) && URL.canParse(text);
}
