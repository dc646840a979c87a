// View of a JSON answer as it arrives: the value so far and, folded, the text as the model wrote it.

import { element } from "./dom.js";
import { print } from "./exact.js";
import { Throttle } from "./throttle.js";

const emptyFor = (key) => (typeof key === "number" ? [] : {});

/** Sets a member. A plain assignment to `__proto__` would change the prototype of all objects. */
function put(parent, key, value) {
  Object.defineProperty(parent, key, { value, writable: true, enumerable: true, configurable: true });
}

/** The container at `key` of `parent` that will hold `next`; created if there is none. */
function inside(parent, key, next) {
  const existing = Object.hasOwn(parent, key) ? parent[key] : null;
  if (typeof existing === "object" && Object.isExtensible(existing)) return existing;
  const made = emptyFor(next);
  put(parent, key, made);
  return made;
}

export class JsonView {
  constructor(parent, onRender) {
    this.onRender = onRender;
    this.drawing = new Throttle(() => this.render(), onRender);
    this.tree = element("pre", "tree");
    this.tree.dataset.language = "json";
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

  /** Adds a complete value at its `path`. */
  setValue({ path, value, outside }) {
    if (path.length > 0) {
      this.value ??= emptyFor(path[0]);
      put(path.slice(1).reduce((at, next, i) => inside(at, path[i], next), this.value), path.at(-1), value);
    } else {
      this.value = value;
      this.isWhole = true;
      this.outside.hidden = !outside;
      this.outside.textContent = `Ignored ${outside} characters outside the JSON.`;
    }
    this.drawing.request();
  }

  /** Renders the final state. If the JSON is incomplete, the original text is unfolded. */
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
