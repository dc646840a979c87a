// HTTP calls to the gateway. A failed call throws an ApiError with a message for the user.

import { Headrace } from "./client/index.js";
import { parse } from "./exact.js";
import { currentKey, promptForKey, credentials } from "./key.js";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const MODEL_TRIES = 30;
const POST_TIMEOUT_MS = 30_000;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The error message of a response, in any of the gateway's dialects. */
async function errorMessage(response) {
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? body.message ?? body.detail;
  return typeof message === "string" ? message : `the gateway responded with status ${response.status}`;
}

/** null: the gateway did not respond. After 401 the user is prompted for a key, and the call is repeated; a link with
 *  a ticket needs no key. */
async function call(path, options = {}) {
  for (;;) {
    const key = currentKey();
    const headers = { ...options.headers, ...credentials() };
    const response = await fetch(path, { cache: "no-store", ...options, headers }).catch(() => null);
    if (response?.status !== 401 || path.includes("ticket=")) return response;
    await promptForKey(await errorMessage(response), key);
  }
}

/** A link with a ticket needs no key. */
const fetchWithKey = (url, init) =>
  fetch(url, { ...init, headers: { ...init.headers, ...(url.includes("ticket=") ? {} : credentials()) } });

const options = {
  url: location.origin,
  fetch: fetchWithKey,
  parse: (text, type) => (type === "json" ? parse(text) : JSON.parse(text)),
};
const client = new Headrace({ ...options, retryTimeoutMs: POST_TIMEOUT_MS });
/** A reader that never gives up: the user sees that it reconnects, and can leave. */
export const reading = new Headrace({ ...options, retryTimeoutMs: Infinity });

/** Repeats a call of the client with another key, if the gateway refuses the one of this tab. */
async function withKey(clientCall) {
  for (;;) {
    const key = currentKey();
    try {
      return await clientCall();
    } catch (error) {
      if (error.status !== 401) throw error;
      await promptForKey(error.message, key);
    }
  }
}

/** Statuses that may succeed on a retry, including 0 and the errors of a proxy during a deploy. */
const isTransient = (status) => status < 400 || status === 408 || status === 429 || status >= 500;

/** Repeats a call after transient failures. */
async function callWithRetries(path, options, { tries, onWait }) {
  for (let failed = 1; ; failed += 1) {
    const response = await call(path, options);
    const status = response?.status ?? 0;
    if (response?.ok) return response;
    const message = response ? await errorMessage(response) : "the gateway does not respond";
    if (!isTransient(status) || failed >= tries) throw new ApiError(message, status);
    onWait?.(message);
    const retryAfter = Number(response?.headers.get("Retry-After")) * 1000;
    await pause(retryAfter > 0 && retryAfter <= 60_000 ? retryAfter : Math.min(500 * 2 ** (failed - 1), 5000));
  }
}

/** Calls a path once and returns its JSON; the operators' page repeats its calls itself. */
export async function fetchJson(path, options) {
  const response = await call(path, options);
  if (!response) throw new ApiError("the gateway does not respond", 0);
  if (!response.ok) throw new ApiError(await errorMessage(response), response.status);
  return response.json();
}

/** ["provider/model", …] */
export async function listModels(onWait) {
  const response = await callWithRetries("/v1/models", {}, { tries: MODEL_TRIES, onWait });
  return (await response.json()).data.map((model) => model.id);
}

/** Starts one generation, and returns its stream. */
export function startChat(body, onWait) {
  return withKey(async () => {
    const stream = client.start(body, { onRetry: ({ error }) => onWait(error.message) });
    await stream.started;
    return stream;
  });
}

export const cancelStream = (id) => withKey(() => client.cancel(id));

const LIST_TRIES = 3;
const chatPath = (id) => `/chats/${encodeURIComponent(id)}`;
const query = (fields) => new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== null));

/** One page of the caller's chats, the newest first; `page`: the `next_page` of the page before. */
export async function listChats(page) {
  const response = await callWithRetries(`/chats?${query({ limit: 50, page })}`, {}, { tries: LIST_TRIES });
  return response.json();
}

/** One page of a chat's turns, the oldest first. */
export async function readChat(id, page) {
  const response = await callWithRetries(`${chatPath(id)}?${query({ limit: 50, page })}`, {}, { tries: LIST_TRIES });
  return parse(await response.text());
}

/** Deletes a chat; one that no longer exists counts as deleted. */
export async function deleteChat(id) {
  const response = await call(chatPath(id), { method: "DELETE" });
  if (response?.ok || response?.status === 404 || response?.status === 410) return;
  throw new ApiError(response ? await errorMessage(response) : "the gateway does not respond", response?.status ?? 0);
}

/** Makes a link that reads one answer and needs no key: {stream_url, expires_at}. */
export const makeTicket = (streamId) =>
  fetchJson(`/chat/${encodeURIComponent(streamId)}/tickets`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: "{}",
  });

/** Whether the gateway refuses callers without credentials, of which a browser may have a cookie. */
export async function needsKey() {
  const response = await fetch("/v1/models", { cache: "no-store", credentials: "omit" }).catch(() => null);
  if (!response) throw new ApiError("the gateway does not respond", 0);
  return response.status === 401;
}
