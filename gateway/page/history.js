// Recent streams of this browser: stored in localStorage, listed in the sidebar. Each belongs to the key that made it;
// those of another key are neither listed nor opened.

import { element } from "./dom.js";
import { keep, ownerMark } from "./key.js";

const KEY = "headrace.streams";
const MAX_ENTRIES = 30;

function load() {
  try {
    const entries = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(entries) ? entries : [];
  } catch {
    return [];
  }
}

const isOwn = (entry) => (entry.owner ?? "") === ownerMark();
const loadOwn = () => load().filter(isOwn);

/** Stores the list; if the browser's storage is full, the oldest entries are dropped. */
function store(entries) {
  for (let kept = entries.slice(0, MAX_ENTRIES); ; kept = kept.slice(0, -1)) {
    try {
      keep(localStorage, KEY, JSON.stringify(kept));
      return;
    } catch {
      if (kept.length === 0) return;
    }
  }
}

export function titleOf(prompt) {
  const words = prompt.trim().split(/\s+/).slice(0, 9).join(" ");
  return words.length > 60 ? `${words.slice(0, 59)}…` : words;
}

function when(at) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
}

export class History {
  /** `on`: open(entry), remove(entry). An entry: id, title, at, state, choice, messages, streamUrl, statusUrl, and the
   *  owner's mark. */
  constructor(list, note, on) {
    this.list = list;
    this.note = note;
    this.welcome = note.textContent;
    this.on = on;
    this.currentId = null;
    window.addEventListener("storage", (event) => event.key === KEY && this.show()); // another tab
    window.addEventListener("owner", () => this.show()); // a key was entered
    this.show();
  }

  find(id) {
    return loadOwn().find((entry) => entry.id === id);
  }

  /** Adds an entry, unless its owner is no longer the one of this page. */
  add(entry) {
    if (!isOwn(entry)) return;
    store([entry, ...load().filter((other) => other.id !== entry.id)]);
    this.show();
  }

  setState(id, state) {
    const entries = load();
    const entry = entries.find((other) => other.id === id);
    if (!entry || entry.state === state) return;
    entry.state = state;
    store(entries);
    this.show();
  }

  remove(id) {
    store(load().filter((entry) => entry.id !== id));
    this.show();
  }

  select(id) {
    this.currentId = id;
    this.show();
  }

  show() {
    const focused = document.activeElement?.closest?.("#history li")?.dataset.id;
    const entries = loadOwn();
    this.note.hidden = entries.length > 0;
    this.note.textContent = this.welcome;
    this.list.replaceChildren(...entries.map((entry) => this.item(entry)));
    if (focused) this.list.querySelector(`li[data-id="${CSS.escape(focused)}"] button`)?.focus();
  }

  showProblem(message) {
    this.note.textContent = message;
    this.note.hidden = false;
  }

  item(entry) {
    const item = element("li");
    item.dataset.id = entry.id;
    const open = element("button", "open");
    open.type = "button";
    open.dataset.testid = "history-item";
    if (entry.id === this.currentId) open.setAttribute("aria-current", "true");
    const state = element("span", "dot", entry.state);
    state.dataset.state = entry.state;
    const meta = element("small", "quiet");
    meta.append(state, ` · ${when(entry.at)}`);
    open.append(element("span", "title", entry.title), meta);
    open.addEventListener("click", () => this.on.open(entry));
    const remove = element("button", "icon remove", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete “${entry.title}”`);
    remove.title = "Delete here and at the gateway";
    remove.addEventListener("click", () => this.on.remove(entry));
    item.append(open, remove);
    return item;
  }
}
