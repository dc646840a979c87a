// One answer: as it arrives, or complete.

import { Aside } from "./aside.js";
import { ToolCalls } from "./tool_calls.js";
import { copyOnClick } from "./copy.js";
import { element, smallButton } from "./dom.js";
import { parse } from "./exact.js";
import { JsonView } from "./json_view.js";
import { Throttle } from "./throttle.js";
import { MarkdownView } from "./markdown_view.js";

const ENDINGS = {
  length: "stopped at the length limit",
  content_filter: "stopped by the provider's content filter",
  cancelled: "cancelled",
  tool_calls: "requested a tool call; this page cannot run tools",
};
const REASONS = { refusal: "the model refused", empty_answer: "the model returned no answer" }; // more specific than ENDINGS

export class Answer {
  constructor(onRender = () => {}) {
    this.onRender = onRender;
    const following = new Throttle(() => {}, onRender);
    const follow = () => following.request();
    this.reasoning = new Aside("details", "reasoning", element("summary", "", "Reasoning"), follow);
    this.body = element("div", "body");
    this.refusal = new Aside("div", "refusal", element("strong", "", "The model refuses"), follow);
    this.calls = new ToolCalls(follow);
    this.problem = element("div", "problem");
    this.problem.hidden = true;
    this.problem.setAttribute("role", "alert");
    this.about = element("span");
    this.copy = smallButton("Copy answer");
    this.copy.hidden = true;
    copyOnClick(this.copy, this.body, () => this.text);
    this.footer = element("footer", "quiet");
    this.footer.append(this.about, this.copy);
    this.element = element("article", "message assistant live");
    this.element.append(element("h3", "hidden", "Answer"), this.reasoning.element, this.body, this.refusal.element);
    this.element.append(this.calls.element, this.problem, this.footer);
    this.view = new MarkdownView(this.body, onRender);
    this.source = "";
  }

  get text() {
    return this.view.text;
  }

  /** Marks the current answer for tests; there is one at a time. */
  markCurrent() {
    for (const [part, name] of [[this.body, "answer"], [this.problem, "problem"]]) {
      document.querySelector(`[data-testid="${name}"]`)?.removeAttribute("data-testid");
      part.dataset.testid = name;
    }
  }

  append(token) {
    this.view.append(token);
  }

  /** Shows the text as JSON, including the text received so far. */
  showAsJson() {
    if (this.view instanceof JsonView) return;
    const { text } = this.view;
    this.view.reset();
    this.view = new JsonView(this.body, this.onRender);
    if (text) this.view.append(text);
  }

  setValue(piece) {
    this.showAsJson();
    this.view.setValue(piece);
  }

  /** Clears the answer: another attempt restarts it. */
  reset() {
    for (const part of [this.view, this.reasoning, this.refusal, this.calls]) part.reset();
    this.problem.hidden = true;
  }

  setSource({ provider, model }) {
    if (!provider) return; // a stream of which only the ending is left
    this.source = `${provider}/${model}`;
    this.about.textContent = this.source;
  }

  /** `retry`: handler of a "Try again" button. */
  fail(title, detail, retry) {
    this.problem.replaceChildren(element("strong", "", title), element("span", "", detail));
    if (retry) {
      const again = smallButton("Try again");
      again.addEventListener("click", retry);
      this.problem.append(again);
    }
    this.problem.hidden = false;
  }

  finish(done) {
    this.element.classList.remove("live");
    this.view.finish();
    for (const block of this.element.querySelectorAll(".body pre, .calls pre")) addCopyButton(block);
    this.copy.hidden = !this.text;
    if (!done) return;
    this.about.textContent = [this.source, endingOf(done), usageOf(done)].filter(Boolean).join(" · ");
  }
}

function endingOf({ finish_reason: ending, reason }) {
  if (REASONS[reason]) return REASONS[reason];
  const why = reason && reason !== ending ? reason.replaceAll("_", " ") : "";
  return [ENDINGS[ending], why].filter(Boolean).join(": ");
}

function usageOf({ usage }) {
  if (!usage) return "";
  const { estimated, input_tokens: input, output_tokens: output, tokens_saved: saved } = usage;
  return `${estimated ? "about " : ""}${input} tokens in, ${output} out${saved ? `, ${saved} saved` : ""}`;
}

function addCopyButton(block) {
  const frame = element("div", "code");
  const bar = element("div", "bar");
  const copy = smallButton("Copy");
  const language = block.querySelector("code")?.className.replace("language-", "") ?? "";
  bar.append(element("span", "", language), copy);
  block.replaceWith(frame);
  frame.append(bar, block);
  block.tabIndex = 0; // scrolled by keyboard
  copyOnClick(copy, block);
}
