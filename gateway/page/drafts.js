// Prompts that were typed and not sent, one for each chat, in sessionStorage. Each key has its own.

import { DRAFTS, keep, ownerMark } from "./key.js";

const MAX_DRAFTS = 20;

function load() {
  try {
    const { owner, texts } = JSON.parse(sessionStorage.getItem(DRAFTS) ?? "{}");
    return owner === ownerMark() && Array.isArray(texts) ? texts : [];
  } catch {
    return [];
  }
}

/** The draft of a chat; null: of a new chat. */
export const draftOf = (chat) => load().find(([of]) => of === chat)?.[1] ?? "";

export function keepDraft(chat, text) {
  const others = load().filter(([of]) => of !== chat);
  const texts = text ? [[chat, text], ...others].slice(0, MAX_DRAFTS) : others;
  try {
    keep(sessionStorage, DRAFTS, JSON.stringify({ owner: ownerMark(), texts }));
  } catch {
    // The storage is full. The prompt is still in its field.
  }
}
