// One message of the conversation as the reader sees it: what was asked, or what is being answered.

import { Aside } from "./aside.js";
import { ToolCalls } from "./calls.js";
import { copies } from "./copy.js";
import { element } from "./dom.js";
import { parse } from "./exact.js";
import { JsonView } from "./json.js";
import { Paced } from "./paced.js";
import { MarkdownView } from "./render.js";

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
const REASONS = { refusal: "the model refused", empty_answer: "the model had no answer" }; // tell more than the above

export class Answer {
  constructor(onRender = () => {}) {
    this.onRender = onRender;
    const following = new Paced(() => {}, onRender);
    const follow = () => following.ask();
    this.reasoning = new Aside("details", "reasoning", element("summary", "", "Reasoning"), follow);
    this.body = element("div", "body");
    this.refusal = new Aside("div", "refusal", element("strong", "", "The model refuses"), follow);
    this.calls = new ToolCalls(follow);
    this.problem = element("div", "problem");
    this.problem.hidden = true;
    this.problem.setAttribute("role", "alert");
    this.footer = element("footer", "quiet");
    this.element = element("article", "message assistant live");
    this.element.append(element("h3", "hidden", "Answer"), this.reasoning.element, this.body, this.refusal.element);
    this.element.append(this.calls.element, this.problem, this.footer);
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

  /** From here on, and what there is already. */
  showAsJson() {
    if (this.view instanceof JsonView) return;
    const { text } = this.view;
    this.view.reset();
    this.view = new JsonView(this.body, this.onRender);
    if (text) this.view.append(text);
  }

  place(piece) {
    this.showAsJson();
    this.view.place(piece);
  }

  /** Another attempt answers from the start. */
  reset() {
    for (const part of [this.view, this.reasoning, this.refusal, this.calls]) part.reset();
    this.problem.hidden = true;
    window.headraceText = "";
  }

  answeredBy({ provider, model }) {
    if (!provider) return; // only its ending is left
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
    for (const block of this.element.querySelectorAll(".body pre, .calls pre")) addCopyButton(block);
    if (!done) return;
    this.footer.textContent = [this.source, endingOf(done), usageOf(done)].filter(Boolean).join(" · ");
  }
}

function endingOf({ finish_reason: ending, reason }) {
  if (REASONS[reason]) return REASONS[reason];
  const why = reason && reason !== ending ? reason.replaceAll("_", " ") : "";
  return [ENDINGS[ending], why].filter(Boolean).join(": ");
}

function usageOf({ usage }) {
  if (!usage) return "";
  const { estimated, input_tokens: asked, output_tokens: told, tokens_saved: saved } = usage;
  return `${estimated ? "about " : ""}${asked} tokens in, ${told} out${saved ? `, ${saved} saved` : ""}`;
}

function addCopyButton(block) {
  const frame = element("div", "code");
  const button = element("button", "small", "Copy");
  button.type = "button";
  block.replaceWith(frame);
  frame.append(block, button);
  copies(button, block);
}

/** An answer of an earlier turn, whole. JSON is shown as such, whether it was asked for or not. */
export function pastAnswer(text) {
  const answer = new Answer();
  const value = jsonIn(text);
  answer.view.append(text);
  if (value) answer.place({ path: [], value });
  answer.finish(null);
  return answer.element;
}

function jsonIn(text) {
  try {
    return /^\s*[{[]/.test(text) ? parse(text) : null;
  } catch {
    return null;
  }
}
