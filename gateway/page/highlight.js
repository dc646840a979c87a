// Syntax highlighting of complete blocks of code. A worker finds the words, as the library's expressions take seconds for
// some texts; one that takes too long is ended. Only lengths and kinds come back, never text or HTML, so highlighting
// can change nothing but the colours.

import { element } from "./dom.js";

const LONGEST = 120_000; // characters; a longer block stays without colours
const MOST_RUNS = 30_000; // pieces of one colour; each is an element of the page
const PATIENCE_MS = 5000;
/** Names that the library knows. Blocks in other languages do not load it. */
export const LANGUAGES = new Set(
  (
    "bash c c# c++ cc cjs console cpp cs csharp css cts cxx diff go golang gql graphql h h++ hh hpp html hxx ini " +
    "ipython java javascript js json json5 jsonc jsp jsx kotlin kt kts less lua mak make makefile markdown " +
    "md mjs mk mm mts obj-c objc objectivec patch perl php pl plist pm podspec py pycon python python-repl " +
    "r rb rs rss ruby rust scss sh shell shellsession sql svg swift toml ts tsx typescript vb vbnet wasm xhtml xml yaml " +
    "yml zsh"
  ).split(" "),
);
/** Classes of the kinds; the worker sends their positions. */
const KINDS = "plain keyword string comment number title attribute type meta added removed".split(" ");

const waiting = []; // {code, language}
let worker = null;
let isReady = false; // the worker has loaded the library
let current = null;
let timer = 0;

/** Colours the element `code` soon, if the library knows its language. */
export function highlight(code, language) {
  const name = language.toLowerCase();
  if (!LANGUAGES.has(name) || code.textContent.length > LONGEST) return;
  waiting.push({ code, language: name });
  if (!current) timer ||= setTimeout(next); // it is not in the document yet
}

function next() {
  clearTimeout(timer);
  timer = 0;
  do current = waiting.shift();
  while (current && !current.code.isConnected); // replaced meanwhile, or of another chat
  if (!current) return;
  current.text = current.code.textContent;
  worker ??= startWorker();
  worker.postMessage({ text: current.text, language: current.language });
  if (isReady) timer = setTimeout(giveUp, PATIENCE_MS);
}

function startWorker() {
  const made = new Worker("/page/highlight_worker.js", { type: "module" });
  isReady = false;
  made.addEventListener("message", ({ data }) => {
    if (made !== worker) return;
    if (data === "ready") {
      isReady = true;
      timer = setTimeout(giveUp, PATIENCE_MS);
    } else {
      paint(current, data);
      next();
    }
  });
  made.addEventListener("error", () => made === worker && giveUp());
  return made;
}

/** Leaves the current block without colours. */
function giveUp() {
  worker.terminate();
  worker = null;
  next();
}

/** `runs`: length and kind of each piece of the text, in turn. */
function paint({ code, text }, runs) {
  if (code.textContent !== text || runs.length > 2 * MOST_RUNS) return;
  const painted = document.createDocumentFragment();
  let at = 0;
  for (let index = 0; index < runs.length; index += 2) {
    const piece = text.slice(at, (at += runs[index]));
    const kind = KINDS[runs[index + 1]];
    painted.append(kind === "plain" ? piece : element("span", kind, piece));
  }
  code.replaceChildren(painted);
}
