// Tool calls of one answer. Each has its own block with the tool's name and the arguments as they arrive.

import { element } from "./dom.js";
import { parse, print } from "./exact.js";

function pretty(text) {
  try {
    return print(parse(text));
  } catch {
    return text;
  }
}

export class ToolCalls {
  constructor(onRender) {
    this.element = element("div", "calls");
    this.onRender = onRender;
    this.calls = new Map(); // by index: {block, name, text}
  }

  reset() {
    this.calls.clear();
    this.element.replaceChildren();
  }

  /** Adds a fragment of a call (the first carries the name) or, if `complete`, the whole call. */
  take({ index, name, arguments: text, complete }) {
    const call = this.calls.get(index) ?? this.begin(index);
    if (name) call.name.textContent = name;
    if (complete) call.text.data = pretty(text);
    else call.text.appendData(text);
    call.block.classList.toggle("coming", !complete);
    this.onRender();
  }

  begin(index) {
    const call = { block: element("section", "call"), name: element("code"), text: document.createTextNode("") };
    const title = element("h4", "", "Tool call ");
    title.append(call.name);
    const shown = element("pre");
    shown.dataset.language = "json";
    shown.append(call.text);
    call.block.append(title, shown);
    this.element.append(call.block);
    this.calls.set(index, call);
    return call;
  }
}
