// A JSON answer while it comes: the value as far as it is known, and behind a click the text as the model wrote it.

import { element } from "./dom.js";
import { print } from "./exact.js";
import { Paced } from "./paced.js";

const emptyFor = (key) => (typeof key === "number" ? [] : {});

/** A plain assignment to a member named __proto__ would reach what all objects share. */
function put(parent, key, value) {
  Object.defineProperty(parent, key, { value, writable: true, enumerable: true, configurable: true });
}

/** The container at `key` of `parent`, in which `next` is to stand; made where there is none. */
function inside(parent, key, next) {
  const there = Object.hasOwn(parent, key) ? parent[key] : null;
  if (typeof there === "object" && Object.isExtensible(there)) return there;
  const made = emptyFor(next);
  put(parent, key, made);
  return made;
}

export class JsonView {
  constructor(parent, onRender) {
    this.onRender = onRender;
    this.drawing = new Paced(() => this.render(), onRender);
    this.tree = element("pre", "tree");
    this.outside = element("p", "quiet");
    this.raw = element("details", "raw");
    this.rawText = document.createTextNode("");
    const shown = element("pre");
    shown.append(this.rawText);
    this.raw.append(element("summary", "", "As the model wrote it"), shown);
    parent.replaceChildren(this.tree, this.outside, this.raw);
    this.reset();
  }

  reset() {
    this.drawing.cancel();
    this.text = "";
    this.value = undefined;
    this.isWhole = false;
    this.rawText.data = this.tree.textContent = "";
    this.raw.open = false;
    this.outside.hidden = this.raw.hidden = true;
  }

  append(text) {
    this.text += text;
    this.rawText.appendData(text);
    this.raw.hidden = false;
  }

  /** A value that is complete, at its `path`. */
  place({ path, value, outside }) {
    if (path.length > 0) {
      this.value ??= emptyFor(path[0]);
      put(path.slice(1).reduce((at, next, i) => inside(at, path[i], next), this.value), path.at(-1), value);
    } else {
      this.value = value;
      this.isWhole = true;
      this.outside.hidden = !outside;
      this.outside.textContent = `Passed over ${outside} characters that are no part of the JSON.`;
    }
    this.drawing.ask();
  }

  /** No more will come. What did not become whole is there to be read as it is. */
  finish() {
    this.drawing.cancel();
    this.render();
    if (this.value === undefined) this.tree.remove();
    if (!this.isWhole) this.raw.open = true;
    this.onRender();
  }

  render() {
    this.tree.textContent = this.value === undefined ? "" : print(this.value);
  }
}
