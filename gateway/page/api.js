// HTTP calls to the gateway. A failed call throws an ApiError with a message for the user.

import { promptForKey, credentials } from "./key.js";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const POST_TRIES = 6;
const MODEL_TRIES = 30;
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

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
    const headers = { ...options.headers, ...credentials() };
    const response = await fetch(path, { cache: "no-store", ...options, headers }).catch(() => null);
    if (response?.status !== 401 || path.includes("ticket=")) return response;
    await promptForKey(await errorMessage(response));
  }
}

/** Statuses that may succeed on a retry, including 0 and the errors of a proxy during a deploy. */
export const isTransient = (status) => status < 400 || status === 408 || status === 429 || status >= 500;

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

/** Queues one generation. A retry carries the same idempotency key, so the gateway starts at most one. */
export async function startChat(body, onWait) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": uuid() },
    body: JSON.stringify(body),
  };
  return (await callWithRetries("/chat", options, { tries: POST_TRIES, onWait })).json();
}

export async function cancelChat(id) {
  await callWithRetries(`/chat/${encodeURIComponent(id)}/cancel`, { method: "POST" }, { tries: POST_TRIES });
}

/** Deletes a stream; one that no longer exists counts as deleted. */
export async function deleteChat(id) {
  const response = await call(`/chat/${encodeURIComponent(id)}`, { method: "DELETE" });
  if (response?.ok || response?.status === 404 || response?.status === 410) return;
  throw new ApiError(response ? await errorMessage(response) : "the gateway does not respond", response?.status ?? 0);
}

export async function chatStatus(url) {
  const response = await call(url);
  return response?.ok ? response.json() : null;
}

/** Requests a stream's URL like EventSource, to get the status that EventSource hides. 0: no response. */
export async function probe(url) {
  const stop = new AbortController();
  try {
    const response = await call(url, { headers: { Accept: "text/event-stream" }, signal: stop.signal });
    if (!response) return { status: 0, message: "" };
    return { status: response.status, message: response.ok ? "" : await errorMessage(response) };
  } finally {
    stop.abort();
  }
}

/** randomUUID exists only over HTTPS and on localhost. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
