// The client of one gateway.

import { checkedHeader, Gateway, newIdempotencyKey } from "./addresses.js";
import { Calls } from "./calls.js";
import { notHeadrace } from "./responses.js";
import { HeadraceStream } from "./stream.js";

/** @import { Chat, ChatList, StreamStatus } from "./events.js" */
/** @import { StreamOptions } from "./stream.js" */

/**
 * @typedef {object} HeadraceOptions
 * @property {string} url  the gateway, such as `http://localhost:8000`
 * @property {string | null} [key]  an API key or a JSON Web Token, if the gateway requires one
 * @property {string | null} [user]  the user for whom a key with the scope `act_for` acts; for servers, not for pages
 * @property {number} [retryTimeoutMs]  failures without progress are retried for so long; `Infinity`: for ever
 * @property {typeof fetch} [fetch]  an own `fetch`, for a proxy, or for credentials of an own kind
 * @property {(text: string, type: string) => any} [parse]  parser of an event's data, instead of `JSON.parse`
 */

/**
 * The request of an answer, as in the documentation of the protocol. With `chat_id`, your id of the conversation,
 * `messages` are only the new ones. `history`: `add` if the chat must exist, `given` if they are the whole conversation.
 * @typedef {{ messages: Record<string, unknown>[], model: string, provider?: string, chat_id?: string,
 *   history?: "add" | "given", [field: string]: unknown }} ChatRequest
 */

/** @typedef {{ limit?: number, page?: string | null, signal?: AbortSignal }} PageOptions */

export class Headrace {
  #gateway;
  #calls;
  #parse;

  /** @param {HeadraceOptions} options */
  constructor({ url, key, user, retryTimeoutMs = 120_000, fetch, parse = (text) => JSON.parse(text) }) {
    this.#gateway = new Gateway(url, key, user);
    this.#calls = new Calls(this.#gateway, retryTimeoutMs, fetch);
    this.#parse = parse;
  }

  /**
   * Starts an answer and returns its stream. The answer is generated with or without readers. The request has its own
   * `Idempotency-Key`, so that it is safe to repeat after a lost response; with a key of yours and the same request, a
   * later start attaches to the same answer.
   * @param {ChatRequest} request
   * @param {Omit<StreamOptions, "lastEventId"> & { idempotencyKey?: string }} [options]
   */
  start(request, { idempotencyKey, ...options } = {}) {
    const url = `${this.#gateway.base}/chat`;
    const headers = {
      ...this.#gateway.headers(url),
      "Content-Type": "application/json",
      "Idempotency-Key": checkedHeader("idempotencyKey", idempotencyKey ?? newIdempotencyKey()),
    };
    const call = { method: "POST", url, headers, body: JSON.stringify(request) };
    const address = this.#calls.call(call, options).then((accepted) => this.#addressOf(accepted));
    return new HeadraceStream(this.#calls, address, options, this.#parse);
  }

  /**
   * Returns a stream by its id or its URL, which may have a ticket. All events come, or with `lastEventId` those after
   * it. Only the client's own gateway gets the key.
   * @param {string} idOrUrl
   * @param {StreamOptions} [options]
   */
  attach(idOrUrl, options = {}) {
    if (options.lastEventId) checkedHeader("lastEventId", options.lastEventId);
    return new HeadraceStream(this.#calls, this.#gateway.stream(idOrUrl), options, this.#parse);
  }

  /**
   * Waits until an answer has ended, and returns it.
   * @param {string} idOrUrl
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<StreamStatus>}
   */
  wait(idOrUrl, options = {}) {
    return this.attach(idOrUrl).wait(options);
  }

  /**
   * Stops an answer; its text so far is kept. A cancel after the end has no effect.
   * @param {string} idOrUrl
   * @param {{ signal?: AbortSignal }} [options]
   */
  cancel(idOrUrl, options = {}) {
    return this.attach(idOrUrl).cancel(options);
  }

  /**
   * The answer so far.
   * @param {string} idOrUrl
   * @param {{ signal?: AbortSignal }} [options]
   */
  status(idOrUrl, options = {}) {
    return this.attach(idOrUrl).status(options);
  }

  /**
   * Your chats, the last changed first. `page`: `next_page` of the page before.
   * @param {PageOptions} [options]
   * @returns {Promise<ChatList>}
   */
  chats(options) {
    return this.#page("/chats", options);
  }

  /**
   * The turns of a chat, the oldest first. `page`: `next_page` of the page before.
   * @param {string} chatId
   * @param {PageOptions} [options]
   * @returns {Promise<Chat>}
   */
  chat(chatId, options) {
    return this.#page(`/chats/${encodeURIComponent(chatId)}`, options);
  }

  /** @param {string} path @param {PageOptions} [options] */
  #page(path, { limit = 20, page, signal } = {}) {
    const query = new URLSearchParams({ limit: String(limit), ...(page ? { page } : {}) });
    const url = `${this.#gateway.base}${path}?${query}`;
    return this.#calls.call({ method: "GET", url, headers: this.#gateway.headers(url) }, { signal });
  }

  /** The stream of a start. Its ticket outlives a short-lived key. @param {any} accepted */
  #addressOf(accepted) {
    if (typeof accepted.stream_url !== "string") throw notHeadrace(202);
    return this.#gateway.stream(accepted.stream_url);
  }
}
