// Types of the events. Their fields have the names of the protocol; `eventId` is the cursor after the event, or null for
// an event that no stream holds.

/**
 * @typedef {object} Usage
 * @property {number} input_tokens
 * @property {number} output_tokens
 * @property {boolean} estimated  the provider did not report both
 * @property {number} [tokens_saved]
 * @property {number} [cached_tokens]
 * @property {number} [cache_write_tokens]
 * @property {number} [reasoning_tokens]
 */

/** An amount of money, such as 0.00123 USD.
 * @typedef {{ amount: number, currency: string }} Cost */

/** `cost` is null without a price.
 * @typedef {{ provider: string, model: string, usage: Usage, cost: Cost | null }} TargetUsage */

/** @typedef {{ type: "queued", eventId: string | null, stream_id: string, position: number | null }} QueuedEvent */
/** The reason for a silence. `queued`, `taken` (by a worker), `model` (it has said nothing yet) or `worker_lost`.
 * @typedef {{ type: "waiting", eventId: null, state: "queued" | "taken" | "model" | "worker_lost", position: number | null, workers: number | null }} WaitingEvent */
/** @typedef {{ eventId: string | null, stream_id: string, provider: string, model: string, attempt: number, ignored?: string[], usage?: Partial<Usage> }} Started */
/** @typedef {{ type: "start" } & Started} StartEvent */
/** The answer begins again, because a worker was lost: discard all of it that is shown.
 * @typedef {{ type: "reset" } & Started} ResetEvent */
/** @typedef {{ type: "token", eventId: string | null, token: string, token_index: number, n: number }} TokenEvent */
/** @typedef {{ type: "reasoning", eventId: string | null, text: string, index: number, n: number }} ReasoningEvent */
/** @typedef {{ type: "refusal", eventId: string | null, text: string, index: number, n: number }} RefusalEvent */
/** A piece of a call's `arguments`; with `complete`, the whole call, after its pieces.
 * @typedef {{ type: "tool_call", eventId: string | null, index: number, arguments: string, id?: string, name?: string, complete: boolean, n: number }} ToolCallEvent */
/** A value of a JSON answer that is whole. `path` is empty for the whole answer.
 * @typedef {{ type: "json", eventId: string | null, path: (string | number)[], value: any, complete: boolean, outside?: number }} JsonEvent */
/** Another call goes on with the same text. Nothing is to be discarded.
 * @typedef {{ type: "continued", eventId: string | null, provider: string, model: string, token_index: number, characters: number, ignored?: string[] }} ContinuedEvent */
/** @typedef {{ type: "extra", eventId: string | null, family: string, data: any }} ExtraEvent */
/** The failure of the answer; `done` follows. `retryable`: the same request may succeed as a new one.
 * @typedef {{ type: "error", eventId: string | null, code: string, message: string, retryable: boolean, provider_code?: string, param?: string }} ErrorEvent */
/** The end of the stream; always its last event. `cost`: of all its calls; null if it is not known.
 * @typedef {{ type: "done", eventId: string | null, finish_reason: string, reason: string | null, usage: Usage | null, usage_by_target?: TargetUsage[], cost: Cost | null }} DoneEvent */

/** An event. A newer gateway may send other types, which may be ignored.
 * @typedef {QueuedEvent | WaitingEvent | StartEvent | ResetEvent | TokenEvent | ReasoningEvent | RefusalEvent | ToolCallEvent | JsonEvent | ContinuedEvent | ExtraEvent | ErrorEvent | DoneEvent} HeadraceEvent */

/** A tool call in the format that `messages` accept.
 * @typedef {{ id: string, type: "function", function: { name: string, arguments: string } }} Call */

/**
 * The answer so far, as `GET /chat/{id}` returns it.
 * @typedef {object} StreamStatus
 * @property {string} stream_id
 * @property {string | null} chat_id
 * @property {"queued" | "running" | "completed" | "failed" | "cancelled" | (string & {})} status
 * @property {number | null} position
 * @property {string} text
 * @property {string} reasoning
 * @property {string} refusal
 * @property {Call[]} tool_calls
 * @property {any} json
 * @property {string | null} finish_reason
 * @property {string | null} reason
 * @property {Usage | null} usage
 * @property {TargetUsage[]} usage_by_target
 * @property {Cost | null} cost
 * @property {Usage | null} usage_final  the provider's count, if it came after the end of a cancelled answer
 * @property {Cost | null} cost_final
 * @property {{ code: string, message: string, retryable: boolean, provider_code?: string, param?: string } | null} error
 * @property {string} model
 * @property {string} provider
 * @property {number} attempt
 * @property {string[]} ignored
 * @property {Record<string, string>} metadata
 * @property {string | null} last_event_id
 * @property {string | null} created_at
 * @property {string | null} started_at
 * @property {string | null} ended_at
 */

/** A chat: `title` is the beginning of its first user message, `status` and `model` are of its last stream.
 * @typedef {{ chat_id: string, title: string, streams: number, last_stream_id: string, status: string,
 *   model: string | null, provider: string | null, created_at: string | null, updated_at: string | null }} ChatSummary */

/** One page of chats. `next_page` is null at the end.
 * @typedef {{ chats: ChatSummary[], next_page: string | null }} ChatList */

/** One stream of a chat. `history` is `given` if its messages replaced the conversation. `messages` are the new ones of
 * its request; null if the gateway does not keep them.
 * @typedef {{ stream_id: string, stream_url: string, status_url: string, status: string, model: string,
 *   history: "added" | "given" | null, messages: Record<string, any>[] | null, answer: StreamStatus }} ChatTurn */

/** A chat and one page of its turns, the oldest first.
 * @typedef {{ chat_id: string, title: string, created_at: string | null, updated_at: string | null,
 *   turns: ChatTurn[], next_page: string | null }} Chat */

export {};
