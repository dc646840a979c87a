// Converts a model's Markdown to inert DOM nodes. Two barriers: HTML in the answer is shown as text, and the result of
// the Markdown passes DOMPurify with a short list of allowed tags and attributes.

import { Marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js"; // UMD: sets window.DOMPurify
import { frameCode } from "./code_block.js";
import { element } from "./dom.js";
import { formulas } from "./markdown_math.js";

const escape = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const BARE_TAG = /^<\/?(br|sub|sup|kbd|mark|u)\s*\/?>$/i;
const IMAGE_DATA = /^data:image\/(png|jpe?g|gif|webp|avif);base64,/i;

const MARKDOWN = {
  gfm: true,
  renderer: {
    html: ({ text }) => (BARE_TAG.test(text) ? text : escape(text)),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // A remote image would reveal to its server that the answer was read, and when: it becomes a link.
    image({ href, text }) {
      if (IMAGE_DATA.test(href)) return `<img src="${escape(href)}" alt="${escape(text)}">`;
      if (/^https:/i.test(href)) return `<a href="${escape(href)}">${escape(text || "image")}</a>`;
      return escape(text);
    },
  },
};
const FORMULA = new Set(["formula", "formula display"]); // classes
const plain = new Marked(MARKDOWN);
const withFormulas = new Marked(MARKDOWN).use(
  formulas(({ raw, isDisplay }) => `<span class="formula${isDisplay ? " display" : ""}">${escape(raw.trim())}</span>`),
);

const purify = window.DOMPurify(window);
const ALLOWED = {
  ALLOWED_TAGS: (
    "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr img kbd li mark ol p pre span strong sub sup " +
    "table tbody td th thead tr u ul #text"
  ).split(" "),
  ALLOWED_ATTR: ["alt", "align", "class", "href", "src", "start", "title"],
  ALLOWED_URI_REGEXP: /^(https?|mailto):/i,
  ADD_URI_SAFE_ATTR: ["align", "start"], // not links, so the line above does not apply
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** Blocks with a direction of their own, from their first letter. Those in lists and quotes take it from these. */
const BLOCKS = new Set("P UL OL H1 H2 H3 H4 H5 H6 BLOCKQUOTE TD TH".split(" "));
const LANGUAGE = /^language-[\w#+.-]{1,30}$/;

purify.addHook("afterSanitizeAttributes", (node) => {
  // The only classes are the language of a code block and the mark of a formula, as the renderers write them.
  const isMarked = node.tagName === "CODE" ? LANGUAGE.test(node.className) : FORMULA.has(node.className);
  if (!isMarked) node.removeAttribute("class");
  if (BLOCKS.has(node.tagName) && !node.parentNode?.closest?.("li, blockquote")) node.setAttribute("dir", "auto");
  // Headings of an answer are below the one that says whose words follow, which has level 3.
  const heading = /^H([1-6])$/.exec(node.tagName);
  if (heading) node.setAttribute("aria-level", Math.min(6, Number(heading[1]) + 3));
  if (node.tagName === "A" && node.hasAttribute("href")) {
    node.setAttribute("rel", "noopener noreferrer nofollow");
    node.setAttribute("target", "_blank");
  }
  if (node.tagName === "IMG" && !IMAGE_DATA.test(node.getAttribute("src") ?? "")) node.remove();
});

/** Top-level blocks; `raw` of each is its source. */
export const blocksOf = (source) => (/\$|\\[([]/.test(source) ? withFormulas : plain).lexer(source);

/** `isFinal`: the blocks do not change any more. */
export function toFragment(blocks, isFinal) {
  const made = purify.sanitize(withFormulas.parser(blocks), ALLOWED);
  for (const block of made.querySelectorAll("pre")) frameCode(block, isFinal);
  for (const table of made.querySelectorAll("table")) frameTable(table);
  for (const formula of made.querySelectorAll(".formula.display")) formula.tabIndex = 0; // scrolled by keyboard
  return made;
}

/** Lets a wide table be scrolled by itself, by keyboard too. */
function frameTable(table) {
  const frame = element("div", "wide");
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Table");
  table.replaceWith(frame);
  frame.append(table);
}
