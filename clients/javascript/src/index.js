export { Headrace } from "./client.js";
export { HeadraceError, WebhookInvalid } from "./errors.js";
export { HeadraceStream } from "./stream.js";
export { verifyWebhook } from "./webhooks.js";

/** @typedef {import("./events.js").Chat} Chat */
/** @typedef {import("./events.js").ChatList} ChatList */
/** @typedef {import("./events.js").ChatSummary} ChatSummary */
/** @typedef {import("./events.js").ChatTurn} ChatTurn */
/** @typedef {import("./client.js").ChatRequest} ChatRequest */
/** @typedef {import("./client.js").HeadraceOptions} HeadraceOptions */
/** @typedef {import("./events.js").Cost} Cost */
/** @typedef {import("./events.js").HeadraceEvent} HeadraceEvent */
/** @typedef {import("./events.js").StreamStatus} StreamStatus */
/** @typedef {import("./events.js").Usage} Usage */
/** @typedef {import("./retries.js").Retry} Retry */
/** @typedef {import("./stream.js").StreamOptions} StreamOptions */
