// View of streaming Markdown. A block that is followed by whole lines of another block can no longer change: it is
// rendered once. (An unfinished line proves nothing: "#" is a heading until it becomes "#5".) Only the text after it is
// rendered again as it grows.

import { blocksOf, toFragment } from "./markdown.js";
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
    this.linesSeen = 0; // length of the whole lines in `open` at the last search for finished blocks
    this.tail = document.createElement("div");
    this.tail.className = "tail";
    this.element.replaceChildren(this.tail);
  }

  append(text) {
    this.text += text;
    this.open += text.replace(/\r\n?/g, "\n");
    this.drawing.request();
  }

  /** Renders the complete text. */
  finish() {
    this.drawing.cancel();
    // [text][1] may come blocks before its [1]: https://…, so links need the whole text.
    if (LINK_DEFINITION.test(this.text)) {
      const whole = this.text;
      this.reset();
      this.text = this.open = whole;
      this.tail.replaceChildren(toFragment(blocksOf(whole)));
    } else this.render();
    this.onRender();
  }

  render() {
    if (this.open.lastIndexOf("\n") >= this.linesSeen) this.settle();
    this.tail.replaceChildren(toFragment(blocksOf(this.open)));
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
