// Questions that were written and not sent, one for each chat. Each key has its own. Their text is in sessionStorage;
// their images, which are too large for it, only last as long as the page is open.

import { nameOf } from "./content.js";
import { DRAFTS, keep, ownerMark } from "./key.js";

const MAX_DRAFTS = 20;
const images = new Map(); // a chat → parts

function load() {
  try {
    const { owner, texts } = JSON.parse(sessionStorage.getItem(DRAFTS) ?? "{}");
    return owner === ownerMark() && Array.isArray(texts) ? texts : [];
  } catch {
    return [];
  }
}

/** The draft of a chat; null: of a new chat. `lost`: names of images that were not kept. */
export function draftOf(chat) {
  const draft = load().find(([of]) => of === chat);
  if (!draft) return { text: "", images: [], lost: [] };
  const [, text, names = []] = draft;
  const kept = images.get(chat);
  return { text, images: kept ?? [], lost: kept ? [] : names };
}

export function keepDraft(chat, text, attached = []) {
  const others = load().filter(([of]) => of !== chat);
  const isEmpty = !text && attached.length === 0;
  const texts = isEmpty ? others : [[chat, text, attached.map(nameOf)], ...others].slice(0, MAX_DRAFTS);
  images.set(chat, [...attached]);
  for (const of of images.keys()) if (!texts.some(([kept]) => kept === of)) images.delete(of);
  try {
    keep(sessionStorage, DRAFTS, JSON.stringify({ owner: ownerMark(), texts }));
  } catch {
    // The storage is full. The prompt is still in its field.
  }
}
