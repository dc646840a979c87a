// A React hook for one answer at a time.

import { useCallback, useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { HeadraceError } from "./errors.js";

/** @import { ChatRequest, Headrace } from "./client.js" */
/** @import { Call, DoneEvent } from "./events.js" */
/** @import { HeadraceStream } from "./stream.js" */

/** Renders happen at most this often, however many tokens arrive. */
const RENDER_EVERY_MS = 16;

/**
 * @typedef {object} StreamState
 * @property {"idle" | "starting" | "queued" | "streaming" | "reconnecting" | "done" | "error"} status
 * @property {string} id  empty until the answer is started
 * @property {string} url  has a ticket: whoever has it may read this answer
 * @property {number | null} position  in the queue; 1 is next
 * @property {"queued" | "taken" | "model" | "worker_lost" | null} waiting  the reason for a silence; null while output comes
 * @property {string} text
 * @property {string} reasoning
 * @property {string} refusal
 * @property {Call[]} toolCalls
 * @property {any} json
 * @property {string} model
 * @property {string} provider
 * @property {DoneEvent | null} done
 * @property {{ code: string, message: string, retryable: boolean } | null} error
 */

/** @type {StreamState} */
const IDLE = {
  status: "idle",
  id: "",
  url: "",
  position: null,
  waiting: null,
  text: "",
  reasoning: "",
  refusal: "",
  toolCalls: [],
  json: null,
  model: "",
  provider: "",
  done: null,
  error: null,
};

/** The state of the stream that is read, for `useSyncExternalStore`. */
class Store {
  /** @type {StreamState} */
  state = IDLE;
  /** @type {HeadraceStream | null} */
  stream = null;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  #stop = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Partial<StreamState>} */
  #next = {};

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  snapshot = () => this.state;

  /** Stops reading. The answer itself continues at the gateway. */
  leave() {
    this.#stop.abort();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#next = {};
    this.stream = null;
  }

  /** @param {(options: import("./stream.js").StreamOptions) => HeadraceStream} open @param {"starting" | "reconnecting"} status */
  follow(open, status) {
    this.leave();
    const stop = new AbortController();
    this.#stop = stop;
    this.#render({ ...IDLE, status });
    const stream = open({
      signal: stop.signal,
      onRetry: () => stop.signal.aborted || this.#show({ status: "reconnecting", position: null, waiting: null }),
    });
    this.stream = stream;
    this.#read(stream, stop.signal);
    return stream;
  }

  /** @param {HeadraceStream} stream @param {AbortSignal} signal */
  async #read(stream, signal) {
    try {
      const { id, url } = await stream.started;
      if (signal.aborted) return;
      this.#show({ id, url });
      for await (const event of stream) {
        if (signal.aborted) return;
        const isQueued = event.type === "queued" || (event.type === "waiting" && event.state === "queued");
        const position = isQueued ? event.position : null;
        const waiting = event.type === "waiting" ? event.state : isQueued ? "queued" : null;
        this.#show({ status: isQueued ? "queued" : "streaming", position, waiting });
      }
      if (!signal.aborted) this.#show({ status: stream.error ? "error" : "done", waiting: null });
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof HeadraceError)) throw error;
      const { code, message, retryable } = error;
      this.#show({ status: "error", error: { code, message, retryable } });
    }
  }

  /** Renders the changes and the stream's parts, together with others that come soon. @param {Partial<StreamState>} changes */
  #show(changes) {
    Object.assign(this.#next, changes);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const next = this.#next;
      this.#next = {};
      this.#render({ ...this.state, ...partsOf(this.stream), ...next });
    }, RENDER_EVERY_MS);
  }

  /** @param {StreamState} state */
  #render(state) {
    this.state = state;
    for (const listener of this.#listeners) listener();
  }
}

/** @param {HeadraceStream | null} stream @returns {Partial<StreamState>} */
function partsOf(stream) {
  if (!stream) return {};
  const { text, reasoning, refusal, toolCalls, json, model, provider, done, error } = stream;
  return { text, reasoning, refusal, toolCalls, json, model, provider, done, error };
}

/**
 * Reads one answer at a time. `start` and `attach` replace the one before; unmounting stops the reading, and the answer
 * continues at the gateway. With `idOrUrl`, that answer is read from its start whenever the component is mounted:
 * store the `id` or `url` to survive a reload.
 * @param {Headrace} client  keep it outside of the component, or in `useMemo`
 * @param {string | null} [idOrUrl]
 */
export function useHeadraceStream(client, idOrUrl = null) {
  const kept = useRef(/** @type {Store | null} */ (null));
  kept.current ??= new Store();
  const store = kept.current;
  const state = useSyncExternalStore(store.subscribe, store.snapshot, store.snapshot);

  useEffect(() => {
    // An id that was stored after a start here is already being read.
    const isRead = store.stream && (idOrUrl === null || idOrUrl === store.stream.id || idOrUrl === store.stream.url);
    if (idOrUrl !== null && !isRead) store.follow((options) => client.attach(idOrUrl, options), "reconnecting");
  }, [client, idOrUrl, store]);
  useEffect(() => () => store.leave(), [store]);

  const start = useCallback(
    /** Resolves with the id and the url. @param {ChatRequest} request */
    (request) => store.follow((options) => client.start(request, options), "starting").started,
    [client, store],
  );
  const attach = useCallback(
    /** @param {string} stream */
    (stream) => void store.follow((options) => client.attach(stream, options), "reconnecting"),
    [client, store],
  );
  const cancel = useCallback(async () => store.stream?.cancel(), [store]);
  return useMemo(() => ({ ...state, start, attach, cancel }), [state, start, attach, cancel]);
}
