// Blocks of code: a bar with the language and a button that copies, above the code.

import { copyOnClick } from "./copy.js";
import { element, smallButton } from "./dom.js";
import { highlight } from "./highlight.js";

/** Puts a `pre` under its bar, once. `isFinal`: its text does not change any more. */
export function frameCode(block, isFinal) {
  if (block.closest(".code")) return;
  const frame = element("div", "code");
  const bar = element("div", "bar");
  const code = block.querySelector("code") ?? block;
  const language = block.dataset.language ?? /^language-(.+)/.exec(code.className)?.[1] ?? "";
  bar.append(element("span", "", language));
  block.replaceWith(frame);
  frame.append(bar, block);
  block.tabIndex = 0; // scrolled by keyboard
  if (!isFinal) return;
  const copy = smallButton("Copy");
  copyOnClick(copy, block);
  bar.append(copy);
  highlight(code, language);
}
