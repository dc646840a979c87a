// What a model says beside its answer: its reasoning, its refusal. There is nothing to see of it before it says so.

import { element } from "./dom.js";

export class Aside {
  constructor(tag, className, title, onRender) {
    this.element = element(tag, className);
    this.text = document.createTextNode("");
    this.onRender = onRender;
    const said = element("div", "said");
    said.append(this.text);
    this.element.append(title, said);
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
