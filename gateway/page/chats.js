// The list of chats: those of the key, as the gateway has them. It is read again when the page gets the focus, when
// another tab reports a change, and every 15 seconds while the page is visible.

import { deleteChat, listChats } from "./api.js";
import { addressOfChat } from "./address.js";
import { element } from "./dom.js";
import { CHANGED, keep } from "./key.js";

const EVERY_MS = 15_000;
const STATES = { running: "streaming", completed: "done", failed: "error" };

function when(at) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return date.toLocaleString([], isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
}

const isSure = (button) => button.classList.contains("sure");

/** Lets a button ask for a second click. */
function askAgain(button) {
  const { textContent: text } = button;
  button.classList.add("sure");
  button.textContent = "Delete?";
  button.addEventListener(
    "blur",
    () => {
      button.classList.remove("sure");
      button.textContent = text;
    },
    { once: true },
  );
}

export class ChatList {
  /** `on`: changed(id) when a turn was added to the chat that is open, deleted(id). */
  constructor(list, note, more, on) {
    this.list = list;
    this.note = note;
    this.more = more;
    this.welcome = note.textContent;
    this.on = on;
    this.currentId = null;
    this.chats = [];
    this.nextPage = null;
    this.isStarted = false;
    this.reads = 0; // an earlier response that arrives late is ignored
    window.addEventListener("storage", ({ key }) => key === CHANGED && this.refresh()); // another tab
    more.addEventListener("click", () => this.loadMore());
    window.addEventListener("owner", () => this.restart()); // a key was entered
    window.addEventListener("focus", () => this.refresh());
    document.addEventListener("visibilitychange", () => this.refresh());
    setInterval(() => this.refresh(), EVERY_MS);
  }

  start() {
    this.isStarted = true;
    this.refresh();
  }

  /** Reads the newest chats again. Older ones that were loaded stay. */
  async refresh() {
    if (!this.isStarted || document.hidden) return;
    const mine = (this.reads += 1);
    const { chats, next_page: next } = await this.read(null);
    if (!chats || mine !== this.reads) return;
    const known = new Map(this.chats.map((chat) => [chat.chat_id, chat]));
    const fresh = new Set(chats.map((chat) => chat.chat_id));
    const oldest = chats.at(-1)?.updated_at ?? "";
    const isOlder = (chat) => next !== null && chat.updated_at < oldest && !fresh.has(chat.chat_id);
    const older = this.chats.filter(isOlder);
    if (older.length === 0) this.nextPage = next;
    this.chats = [...chats, ...older];
    this.show();
    const current = chats.find((chat) => chat.chat_id === this.currentId);
    if (current && known.get(this.currentId)?.last_stream_id !== current.last_stream_id) this.on.changed();
  }

  async loadMore() {
    const { chats, next_page: next } = await this.read(this.nextPage);
    if (!chats) return;
    const known = new Set(this.chats.map((chat) => chat.chat_id));
    this.chats.push(...chats.filter((chat) => !known.has(chat.chat_id)));
    this.nextPage = next;
    this.show();
  }

  async read(page) {
    try {
      return await listChats(page);
    } catch (error) {
      this.showProblem(`The chats could not be listed: ${error.message}.`);
      return {};
    }
  }

  /** Forgets the chats of the last key. */
  restart() {
    this.chats = [];
    this.nextPage = null;
    this.show();
    this.refresh();
  }

  /** Tells the other tabs that a chat has changed, and reads the list again. */
  report() {
    keep(localStorage, CHANGED, String(Math.random()));
    this.refresh();
  }

  setState(id, state) {
    const dot = this.list.querySelector(`li[data-id="${CSS.escape(id)}"] .dot`);
    if (!dot) return;
    dot.textContent = dot.dataset.state = state;
  }

  select(id) {
    this.currentId = id;
    this.show();
  }

  show() {
    const focused = document.activeElement?.closest?.("#history li")?.dataset.id;
    this.note.hidden = this.chats.length > 0;
    if (this.note.textContent !== this.welcome) this.note.textContent = this.welcome; // each write is announced
    this.more.hidden = this.nextPage === null;
    this.list.replaceChildren(...this.chats.map((chat) => this.item(chat)));
    if (focused) this.list.querySelector(`li[data-id="${CSS.escape(focused)}"] a`)?.focus();
  }

  showProblem(message) {
    this.note.textContent = message;
    this.note.hidden = false;
  }

  item({ chat_id: id, title, status, updated_at: at }) {
    const item = element("li");
    item.dataset.id = id;
    const open = element("a", "open");
    open.href = addressOfChat(id);
    open.dataset.testid = "history-item";
    if (id === this.currentId) open.setAttribute("aria-current", "page");
    const state = element("span", "dot", STATES[status] ?? status);
    state.dataset.state = state.textContent;
    const meta = element("small", "quiet");
    meta.append(state, ` · ${when(at)}`);
    open.append(element("span", "title", title || "Untitled"), meta);
    const remove = element("button", "icon remove", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete “${title}”`);
    remove.title = "Delete this chat at the gateway, for all devices";
    remove.addEventListener("click", () => (isSure(remove) ? this.remove(id, title) : askAgain(remove)));
    item.append(open, remove);
    return item;
  }

  async remove(id, title) {
    try {
      await deleteChat(id);
    } catch (error) {
      this.showProblem(`“${title}” could not be deleted: ${error.message}.`);
      return;
    }
    this.chats = this.chats.filter((chat) => chat.chat_id !== id);
    this.show();
    this.report();
    this.on.deleted(id);
  }
}
