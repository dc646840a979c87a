// View of streaming Markdown. A block that is followed by whole lines of another block can no longer change: it is
// rendered once. (An unfinished line proves nothing: "#" is a heading until it becomes "#5".) Only the text after it is
// rendered again as it grows. Text that is too complex for the parser, or that makes it throw, is shown as it is, and so
// is all after it.

import { element } from "./dom.js";
import { showFormulas } from "./formulas.js";
import { blocksOf, toFragment } from "./markdown.js";
import { isTooComplex } from "./markdown_limits.js";
import { Throttle } from "./throttle.js";

const LINK_DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;

/** Characters that are parsed at once, at least; a long answer that is opened again comes in large pieces. */
const STEP = 4096;

export class MarkdownView {
  constructor(element, onRender = () => {}) {
    this.element = element;
    this.onRender = onRender;
    this.drawing = new Throttle(() => this.render(), onRender);
    this.reset();
  }

  reset() {
    this.drawing.cancel();
    this.isFinished = false;
    this.text = "";
    this.queue = ""; // text that is not parsed yet
    this.open = ""; // text after the finished blocks
    this.plain = null; // text node with the rest of an answer that is not parsed
    this.linesSeen = 0; // length of the whole lines in `open` at the last search for finished blocks
    this.tail = document.createElement("div");
    this.tail.className = "tail";
    this.element.replaceChildren(this.tail);
  }

  /** Shows a text as it is, until it is formatted after `reset`. */
  preview(text) {
    this.element.replaceChildren(element("div", "plain", text));
  }

  append(text) {
    this.text += text;
    if (this.plain) this.plain.appendData(text);
    else this.queue += text.replace(/\r\n?/g, "\n");
    this.drawing.request();
  }

  /** Renders the complete text. */
  finish() {
    this.drawing.cancel();
    this.isFinished = true;
    // [text][1] may come blocks before its [1]: https://…, so links need the whole text.
    if (!this.plain && LINK_DEFINITION.test(this.text) && !isTooComplex(this.text)) {
      const whole = this.text;
      this.reset();
      this.isFinished = true;
      this.text = this.open = whole;
    }
    this.render();
    this.onRender();
  }

  render() {
    if (this.plain) return;
    try {
      while (this.queue) {
        const end = this.queue.indexOf("\n", STEP) + 1 || this.queue.length;
        if (this.take(end) || this.takeParagraphs()) continue;
        if (this.open.endsWith("\n\n")) this.flush();
        return this.showPlain();
      }
      this.tail.replaceChildren(this.fragmentOf(blocksOf(this.open), this.isFinished));
    } catch {
      this.showPlain(); // the parser's stack was too small
    }
  }

  /** Parses the beginning of the queue. Returns false, and changes nothing, if that would be too complex. */
  take(end) {
    const open = this.open + this.queue.slice(0, end);
    if (isTooComplex(open)) return false;
    this.open = open;
    this.queue = this.queue.slice(end);
    if (this.open.lastIndexOf("\n") >= this.linesSeen) this.settle();
    return true;
  }

  /** Parses the queue up to the paragraph that is too complex. Returns false if that is the first. */
  takeParagraphs() {
    let taken = false;
    for (let end; (end = this.queue.indexOf("\n\n") + 2) > 1 && this.take(end); ) taken = true;
    return taken;
  }

  /** Renders the open text as finished. */
  flush() {
    this.tail.before(this.fragmentOf(blocksOf(this.open), true));
    this.open = "";
  }

  fragmentOf(blocks, isFinal) {
    const made = toFragment(blocks, isFinal);
    showFormulas(made, this.onRender);
    return made;
  }

  /** Shows the rest of the answer as text, from now on. */
  showPlain() {
    this.plain = document.createTextNode(this.open + this.queue);
    const shown = element("div", "plain");
    shown.append(this.plain);
    this.tail.replaceChildren(shown);
    this.open = this.queue = "";
  }

  settle() {
    const blocks = blocksOf(this.open.slice(0, this.open.lastIndexOf("\n") + 1));
    const finished = blocks.slice(0, Math.max(0, blocks.findLastIndex((block) => block.type !== "space")));
    if (finished.length > 0) {
      this.tail.before(this.fragmentOf(finished, true));
      this.open = this.open.slice(finished.reduce((length, block) => length + block.raw.length, 0));
    }
    this.linesSeen = this.open.lastIndexOf("\n") + 1;
  }
}
