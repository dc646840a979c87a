// Page furniture: prompt box, sidebar on a phone, automatic scrolling, the curl example.

import { Attachments } from "./attachments.js";

const byId = (id) => document.getElementById(id);

const KEYS = "Enter sends, Shift+Enter starts a new line.";

export class Composer {
  /** `on`: send(text, images), which returns true if the question was accepted; stop(); typed(text, images). */
  constructor(on) {
    this.on = on;
    this.prompt = byId("prompt");
    this.keys = byId("keys");
    this.sendButton = byId("send");
    this.stopButton = byId("stop");
    this.attachments = new Attachments(this.prompt, () => this.changed());
    byId("composer").prepend(this.attachments.list, this.attachments.note, this.attachments.input);
    byId("composer").insertBefore(this.attachments.button, this.prompt);
    this.attachments.takeDrops(document.body, () => !this.prompt.checkVisibility());
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.submit();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing || document.querySelector("dialog[open], #sidebar.open")) return;
      if (!this.stopButton.hidden && !this.stopButton.disabled) this.stopButton.click();
    });
    this.prompt.addEventListener("input", () => {
      this.fit();
      this.changed();
    });
    this.stopButton.addEventListener("click", () => {
      this.stopButton.disabled = true;
      this.on.stop();
    });
  }

  submit() {
    const text = this.prompt.value.trim();
    if (!this.stopButton.hidden) return this.hint("An answer is coming: wait for its end, or press Esc to stop it.");
    const { images, isBusy } = this.attachments;
    if (isBusy) return this.hint("An image is still being prepared: send again in a moment.");
    if ((!text && images.length === 0) || !this.on.send(text, [...images])) return;
    if (matchMedia("(hover: none)").matches) this.prompt.blur(); // folds the keyboard of a phone
    this.hint(KEYS);
    this.fill({ text: "", images: [], lost: [] });
  }

  changed() {
    this.on.typed(this.prompt.value, this.attachments.images);
  }

  /** Shows what the keys do. */
  hint(text) {
    if (this.keys.textContent !== text) this.keys.textContent = text;
    this.keys.classList.toggle("urgent", text !== KEYS);
  }

  /** Shows a draft. `lost`: names of its images that were not kept. */
  fill({ text, images, lost }) {
    this.prompt.value = text;
    this.attachments.fill(images, lost.length > 0 ? `Attach again: ${lost.join(", ")}. A reload keeps only text.` : "");
    this.fit();
  }

  fit() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${Math.min(this.prompt.scrollHeight + 2, 220)}px`;
  }

  /** `isLive`: an answer is coming, so Stop replaces Send. */
  setLive(isLive) {
    const hadFocus = document.activeElement === this.stopButton;
    this.sendButton.hidden = isLive;
    this.stopButton.hidden = !isLive;
    if (!isLive) {
      this.allowStop();
      this.hint(KEYS);
    }
    if (hadFocus && !isLive) this.focus();
  }

  allowStop() {
    this.stopButton.disabled = false;
  }

  focus() {
    this.prompt.focus();
  }
}

/** Keeps the end visible while the content grows, unless the user has scrolled away from it. */
export class Scroller {
  constructor(area, toEnd) {
    this.area = area;
    this.isAtEnd = true;
    this.button = toEnd;
    area.addEventListener("scroll", () => {
      this.isAtEnd = area.scrollHeight - area.scrollTop - area.clientHeight < 60;
      toEnd.hidden = this.isAtEnd;
    });
    toEnd.addEventListener("click", () => this.toEnd());
  }

  follow() {
    if (this.isAtEnd) this.area.scrollTop = this.area.scrollHeight;
  }

  toEnd() {
    this.isAtEnd = true;
    this.follow();
  }
}

/** A column of the page if there is room; a drawer on a phone. */
export class Sidebar {
  constructor(element, button, scrim) {
    this.element = element;
    this.button = button;
    this.scrim = scrim;
    button.addEventListener("click", () => this.toggle(!this.isOpen));
    scrim.addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  get isOpen() {
    return this.element.classList.contains("open");
  }

  toggle(isOpen) {
    this.element.classList.toggle("open", isOpen);
    this.scrim.hidden = !isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.element.querySelector("button").focus();
  }

  close() {
    if (!this.isOpen) return;
    this.toggle(false);
    this.button.focus();
  }
}

/** A message above the conversation, with a way to a new chat. */
export class Notice {
  constructor(element, startNewChat) {
    this.element = element;
    this.text = element.querySelector("p");
    element.querySelector("button").addEventListener("click", startNewChat);
  }

  show(message) {
    this.text.textContent = message;
    this.element.hidden = false;
  }

  hide() {
    this.element.hidden = true;
  }
}

/** Shows the same request for a terminal. */
export function showCurl(code, choice) {
  const body = JSON.stringify({ ...choice, messages: [{ role: "user", content: "Hello" }] });
  code.textContent =
    `curl -N ${location.origin}/chat/stream \\\n  -H 'Content-Type: application/json' \\\n` +
    `  -d '${body.replaceAll("'", "'\\''")}'`;
}
