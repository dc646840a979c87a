// Images of a question that is being written: chosen, pasted or dropped, with a preview of each.

import { imagePart, nameOf } from "./content.js";
import { element } from "./dom.js";
import { prepare } from "./images.js";
import { imageElement } from "./question.js";

const MOST_IMAGES = 8;
const hasFiles = (event) => Array.from(event.dataTransfer?.types ?? []).includes("Files");

export class Attachments {
  /** `field`: where images are pasted. `changed`: called when an image was added or removed. */
  constructor(field, changed = () => {}) {
    this.field = field;
    this.changed = changed;
    this.images = []; // parts of the content
    this.pending = 0;
    this.list = element("ul", "images attached");
    this.list.setAttribute("aria-label", "Attached images");
    this.list.hidden = true;
    this.note = element("p", "attach-note");
    this.note.setAttribute("role", "status");
    this.input = element("input");
    Object.assign(this.input, { type: "file", accept: "image/*", multiple: true, hidden: true });
    this.button = attachButton();
    this.button.addEventListener("click", () => this.input.click());
    this.input.addEventListener("change", () => {
      this.add([...this.input.files]);
      this.input.value = ""; // the same file can be chosen again
    });
    field.addEventListener("paste", (event) => this.paste(event));
  }

  get isBusy() {
    return this.pending > 0;
  }

  /** Shows these images instead of those before. */
  fill(images, note = "") {
    this.batch = {}; // what is still being prepared was meant for another question
    this.pending = 0;
    this.images = [...images];
    this.show();
    this.say(note);
  }

  /** Text with a picture of itself, as spreadsheets copy it, is pasted as text. */
  paste(event) {
    const { files, types } = event.clipboardData;
    if (files.length === 0 || types.includes("text/plain")) return;
    event.preventDefault();
    this.add([...files]);
  }

  /** Takes files that are dropped on `area`, unless `isOff()`, or an area in it takes them. */
  takeDrops(area, isOff = () => false) {
    const mark = (isOver) => area.classList.toggle("dropping", isOver);
    area.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      if (event.defaultPrevented) return mark(false);
      event.preventDefault(); // else the browser would open the file
      event.dataTransfer.dropEffect = isOff() ? "none" : "copy";
      mark(!isOff());
    });
    area.addEventListener("dragleave", ({ relatedTarget }) => {
      if (!area.contains(relatedTarget)) mark(false);
    });
    area.addEventListener("drop", (event) => {
      mark(false);
      if (!hasFiles(event) || event.defaultPrevented) return;
      event.preventDefault();
      if (isOff()) return;
      this.add([...event.dataTransfer.files]);
      this.field.focus();
    });
  }

  async add(files) {
    if (files.length === 0) return;
    const { batch } = this;
    const problems = [];
    const room = Math.max(0, MOST_IMAGES - this.images.length - this.pending);
    const taken = files.slice(0, room);
    if (taken.length < files.length) problems.push(tooMany(files.slice(room)));
    this.pending += taken.length;
    this.say("Preparing…");
    for (const file of taken) {
      const { part, problem } = await partOf(file);
      if (batch !== this.batch) return;
      this.pending -= 1;
      if (part) this.images.push(part);
      else problems.push(problem);
      this.show();
    }
    this.say(problems.join(" "), problems.length > 0);
    this.changed();
  }

  remove(part) {
    const at = this.images.indexOf(part);
    this.images.splice(at, 1);
    this.show();
    this.say(`${nameOf(part)} was removed.`);
    (this.list.querySelectorAll("button")[at] ?? this.button).focus();
    this.changed();
  }

  show() {
    this.list.hidden = this.images.length === 0;
    this.list.replaceChildren(...this.images.map((part) => this.preview(part)));
  }

  preview(part) {
    const item = element("li");
    const remove = element("button", "icon remove", "×");
    remove.type = "button";
    remove.title = `Remove ${nameOf(part)}`;
    remove.setAttribute("aria-label", remove.title);
    remove.addEventListener("click", () => this.remove(part));
    item.append(imageElement(part), remove);
    return item;
  }

  say(text, isProblem = false) {
    this.note.textContent = text;
    this.note.classList.toggle("wrong", isProblem);
  }
}

/** {part} or {problem}. */
async function partOf(file) {
  try {
    return { part: imagePart(await prepare(file), file.name || "Pasted image") };
  } catch (error) {
    return { problem: error.message };
  }
}

function tooMany(files) {
  const names = files.map(({ name }) => name || "an image").join(", ");
  return `A question has at most ${MOST_IMAGES} images; not attached: ${names}.`;
}

function attachButton() {
  const template = document.getElementById("attach-button");
  return template.content.firstElementChild.cloneNode(true);
}
