// The gateway's HTTP calls. What cannot be done throws an ApiError with a sentence for the user.

import { askForKey, credentials } from "./key.js";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const POST_TRIES = 6;
const MODEL_TRIES = 30;
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** What the gateway says is wrong, in whichever of its dialects. */
async function problem(response) {
  const body = await response.json().catch(() => ({}));
  const said = body.error?.message ?? body.message ?? body.detail;
  return typeof said === "string" ? said : `the gateway answered ${response.status}`;
}

/** null stands for "no answer at all". Whoever is not let in is asked for a key, and then once more; a link that
 *  carries a ticket needs none. */
async function call(path, options = {}) {
  for (;;) {
    const headers = { ...options.headers, ...credentials() };
    const response = await fetch(path, { cache: "no-store", ...options, headers }).catch(() => null);
    if (response?.status !== 401 || path.includes("ticket=")) return response;
    await askForKey(await problem(response));
  }
}

/** Worth asking again; 0 and whatever a proxy says during a deploy included. */
export const isPassing = (status) => status < 400 || status === 408 || status === 429 || status >= 500;

/** Calls until the answer is more than a passing refusal, then gives the answer. */
async function insist(path, options, { tries, onWait }) {
  for (let failed = 1; ; failed += 1) {
    const response = await call(path, options);
    const status = response?.status ?? 0;
    if (response?.ok) return response;
    const message = response ? await problem(response) : "the gateway does not answer";
    if (!isPassing(status) || failed >= tries) throw new ApiError(message, status);
    onWait?.(message);
    const asked = Number(response?.headers.get("Retry-After")) * 1000;
    await pause(asked > 0 && asked <= 60_000 ? asked : Math.min(500 * 2 ** (failed - 1), 5000));
  }
}

/** What a path answers, once: the page for operators asks again of itself. */
export async function askOnce(path, options) {
  const response = await call(path, options);
  if (!response) throw new ApiError("the gateway does not answer", 0);
  if (!response.ok) throw new ApiError(await problem(response), response.status);
  return response.json();
}

/** ["provider/model", …] */
export async function listModels(onWait) {
  const response = await insist("/v1/models", {}, { tries: MODEL_TRIES, onWait });
  return (await response.json()).data.map((model) => model.id);
}

/** Queues one generation. A repeat carries the same key, so the gateway starts it at most once. */
export async function startChat(body, onWait) {
  const options = {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": uuid() },
    body: JSON.stringify(body),
  };
  return (await insist("/chat", options, { tries: POST_TRIES, onWait })).json();
}

export async function cancelChat(id) {
  await insist(`/chat/${encodeURIComponent(id)}/cancel`, { method: "POST" }, { tries: POST_TRIES });
}

/** Already gone is as good as deleted. */
export async function deleteChat(id) {
  const response = await call(`/chat/${encodeURIComponent(id)}`, { method: "DELETE" });
  if (response?.ok || response?.status === 404 || response?.status === 410) return;
  throw new ApiError(response ? await problem(response) : "the gateway does not answer", response?.status ?? 0);
}

export async function chatStatus(url) {
  const response = await call(url);
  return response?.ok ? response.json() : null;
}

/** Asks a stream's URL as EventSource does, only to see the status, which EventSource hides. 0: no answer. */
export async function probe(url) {
  const stop = new AbortController();
  try {
    const response = await call(url, { headers: { Accept: "text/event-stream" }, signal: stop.signal });
    if (!response) return { status: 0, message: "" };
    return { status: response.status, message: response.ok ? "" : await problem(response) };
  } finally {
    stop.abort();
  }
}

/** randomUUID exists only over HTTPS and on localhost. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
