// Verification of webhooks, by the Standard Webhooks specification.

import { WebhookInvalid } from "./errors.js";

const TOLERANCE_S = 300;

/**
 * Returns the JSON of a webhook whose signature is right. Throws WebhookInvalid for any other. Deliveries may be
 * repeated: use the header `webhook-id` to act once.
 * @param {string | Uint8Array | ArrayBuffer} body  as it was received, not parsed and printed again
 * @param {Headers | Record<string, string | string[] | undefined>} headers
 * @param {string | string[]} secret  `whsec_…`, or several during a rotation
 * @param {{ toleranceS?: number }} [options]
 * @returns {Promise<any>}
 */
export async function verifyWebhook(body, headers, secret, { toleranceS = TOLERANCE_S } = {}) {
  const raw = typeof body === "string" ? new TextEncoder().encode(body) : new Uint8Array(body);
  const [id, timestamp, given] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) =>
    headerOf(headers, name),
  );
  if (!/^[0-9]{1,15}$/.test(timestamp)) throw new WebhookInvalid("webhook-timestamp: not a number of seconds");
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > toleranceS) {
    throw new WebhookInvalid("webhook-timestamp: too far from the time here; check this machine's clock");
  }
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + raw.length);
  signed.set(head);
  signed.set(raw, head.length);
  const signatures = given.split(" ").filter((one) => one.startsWith("v1,"));
  if (!(await hasRightSignature(signatures, signed, [secret].flat()))) {
    throw new WebhookInvalid("webhook-signature: none is right; check the secret, and pass the body unchanged");
  }
  try {
    const payload = JSON.parse(new TextDecoder().decode(raw));
    if (typeof payload === "object" && payload !== null && !Array.isArray(payload)) return payload;
  } catch {
    // reported below
  }
  throw new WebhookInvalid("body: not a JSON object");
}

/** @param {string[]} signatures @param {Uint8Array<ArrayBuffer>} signed @param {string[]} secrets */
async function hasRightSignature(signatures, signed, secrets) {
  for (const secret of secrets) {
    const bytes = bytesOf(secret.replace(/^whsec_/, ""));
    if (!bytes) throw new TypeError("secret: not in the form whsec_<base64>");
    const key = await crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
    for (const signature of signatures) {
      const mac = bytesOf(signature.slice(3));
      if (mac && (await crypto.subtle.verify("HMAC", key, mac, signed))) return true;
    }
  }
  return false;
}

/** @param {any} headers @param {string} name @returns {string} */
function headerOf(headers, name) {
  const entries = typeof headers.get === "function" ? [[name, headers.get(name)]] : Object.entries(headers);
  const found = entries.find(([key]) => key.toLowerCase() === name)?.[1];
  if (typeof found !== "string") throw new WebhookInvalid(`${name}: the header is missing`);
  return found;
}

/** @param {string} base64 */
function bytesOf(base64) {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}
