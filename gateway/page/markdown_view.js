// View of streaming Markdown. A block that is followed by whole lines of another block can no longer change: it is
// rendered once. (An unfinished line proves nothing: "#" is a heading until it becomes "#5".) Only the text after it is
// rendered again as it grows. Text that is too complex for the parser, or that makes it throw, is shown as it is, and so
// is all after it.

import { element } from "./dom.js";
import { blocksOf, toFragment } from "./markdown.js";
import { isTooComplex } from "./markdown_limits.js";
import { Throttle } from "./throttle.js";

const LINK_DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;

export class MarkdownView {
  constructor(element, onRender = () => {}) {
    this.element = element;
    this.onRender = onRender;
    this.drawing = new Throttle(() => this.render(), onRender);
    this.reset();
  }

  reset() {
    this.drawing.cancel();
    this.text = "";
    this.open = "";
    this.plain = null; // text node with the rest of an answer that is not parsed
    this.linesSeen = 0; // length of the whole lines in `open` at the last search for finished blocks
    this.tail = document.createElement("div");
    this.tail.className = "tail";
    this.element.replaceChildren(this.tail);
  }

  append(text) {
    this.text += text;
    if (this.plain) this.plain.appendData(text);
    else this.open += text.replace(/\r\n?/g, "\n");
    this.drawing.request();
  }

  /** Renders the complete text. */
  finish() {
    this.drawing.cancel();
    // [text][1] may come blocks before its [1]: https://…, so links need the whole text.
    if (!this.plain && LINK_DEFINITION.test(this.text) && !isTooComplex(this.text)) {
      const whole = this.text;
      this.reset();
      this.text = this.open = whole;
    }
    this.render();
    this.onRender();
  }

  render() {
    if (this.plain) return;
    try {
      if (isTooComplex(this.open)) return this.showPlain();
      if (this.open.lastIndexOf("\n") >= this.linesSeen) this.settle();
      this.tail.replaceChildren(toFragment(blocksOf(this.open)));
    } catch {
      this.showPlain(); // the parser's stack was too small
    }
  }

  /** Shows the rest of the answer as text, from now on. */
  showPlain() {
    this.plain = document.createTextNode(this.open);
    const shown = element("div", "plain");
    shown.append(this.plain);
    this.tail.replaceChildren(shown);
    this.open = "";
  }

  settle() {
    const blocks = blocksOf(this.open.slice(0, this.open.lastIndexOf("\n") + 1));
    const finished = blocks.slice(0, Math.max(0, blocks.findLastIndex((block) => block.type !== "space")));
    if (finished.length > 0) {
      this.tail.before(toFragment(finished));
      this.open = this.open.slice(finished.reduce((length, block) => length + block.raw.length, 0));
    }
    this.linesSeen = this.open.lastIndexOf("\n") + 1;
  }
}
