// Text beside the answer: the model's reasoning or refusal. Hidden until the first text arrives.

import { element } from "./dom.js";

export class Aside {
  constructor(tag, className, title, onRender) {
    this.element = element(tag, className);
    this.text = document.createTextNode("");
    this.onRender = onRender;
    const content = element("div", "said");
    content.append(this.text);
    this.element.append(title, content);
    this.reset();
  }

  append(text) {
    this.element.hidden = false;
    this.text.appendData(text);
    this.onRender();
  }

  reset() {
    this.text.data = "";
    this.element.hidden = true;
  }
}
