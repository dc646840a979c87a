// One message of the conversation as the reader sees it: what was asked, or what is being answered.

import { copies } from "./copy.js";
import { MarkdownView } from "./render.js";

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function question(text) {
  const message = element("article", "message user");
  message.append(element("h3", "hidden", "You"), element("div", "bubble", text));
  return message;
}

const ENDINGS = {
  length: "stopped at the length limit",
  content_filter: "stopped by the provider's content filter",
  cancelled: "stopped here",
  tool_calls: "asked for a tool, which this page has none of",
};

export class Answer {
  constructor(onRender) {
    this.element = element("article", "message assistant live");
    this.reasoning = element("details", "reasoning");
    this.thought = document.createTextNode("");
    this.body = element("div", "body");
    this.problem = element("div", "problem");
    this.footer = element("footer", "quiet");
    const thought = element("div", "thought");
    thought.append(this.thought);
    this.reasoning.append(element("summary", "", "Reasoning"), thought);
    this.reasoning.hidden = this.problem.hidden = true;
    this.problem.setAttribute("role", "alert");
    this.element.append(element("h3", "hidden", "Answer"), this.reasoning, this.body, this.problem, this.footer);
    this.view = new MarkdownView(this.body, onRender);
    this.source = "";
  }

  get text() {
    return this.view.text;
  }

  /** How tests find the current answer; there is one at a time. */
  markCurrent() {
    for (const [part, name] of [[this.body, "answer"], [this.problem, "problem"]]) {
      document.querySelector(`[data-testid="${name}"]`)?.removeAttribute("data-testid");
      part.dataset.testid = name;
    }
    window.headraceText = this.text;
  }

  append(token) {
    this.view.append(token);
    window.headraceText = this.text;
  }

  think(text) {
    this.reasoning.hidden = false;
    this.thought.appendData(text);
  }

  /** Another attempt answers from the start. */
  reset() {
    this.view.reset();
    this.thought.data = "";
    this.reasoning.hidden = this.problem.hidden = true;
    window.headraceText = "";
  }

  answeredBy({ provider, model }) {
    this.source = `${provider}/${model}`;
    this.footer.textContent = this.source;
  }

  /** `again`: what a "Try again" button does. */
  fail(title, detail, again) {
    this.problem.replaceChildren(element("strong", "", title), element("span", "", detail));
    if (again) {
      const button = element("button", "small", "Try again");
      button.type = "button";
      button.addEventListener("click", again);
      this.problem.append(button);
    }
    this.problem.hidden = false;
  }

  finish(done) {
    this.element.classList.remove("live");
    this.view.finish();
    for (const block of this.body.querySelectorAll("pre")) addCopyButton(block);
    if (!done) return;
    const { usage } = done;
    const ending = done.reason && done.reason !== done.finish_reason ? done.reason.replaceAll("_", " ") : "";
    const facts = [
      this.source,
      [ENDINGS[done.finish_reason], ending].filter(Boolean).join(": "),
      usage && `${usage.estimated ? "about " : ""}${usage.input_tokens} tokens in, ${usage.output_tokens} out`,
    ];
    this.footer.textContent = facts.filter(Boolean).join(" · ");
  }
}

function addCopyButton(block) {
  const frame = element("div", "code");
  const button = element("button", "small", "Copy");
  button.type = "button";
  block.replaceWith(frame);
  frame.append(block, button);
  copies(button, block);
}

/** An answer of an earlier turn, whole. */
export function pastAnswer(text) {
  const answer = new Answer();
  answer.view.append(text);
  answer.finish(null);
  return answer.element;
}
