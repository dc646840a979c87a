// Worker that finds the words of a block of code. It is loaded with the first block whose language it knows.

import hljs from "./vendor/highlight.min.js";

/** Scopes of the library for each kind, in the order of `KINDS` in `highlight.js`. */
const SCOPES = [
  "subst params operator punctuation formula emphasis strong tag",
  "keyword built_in selector-tag name doctag template-tag",
  "string regexp char link code",
  "comment quote",
  "number literal symbol bullet",
  "title section",
  "attr attribute property variable template-variable selector-id selector-class selector-attr selector-pseudo",
  "type class",
  "meta",
  "addition",
  "deletion",
];
const KIND_OF = new Map(SCOPES.flatMap((names, kind) => names.split(" ").map((name) => [name, kind])));
const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };
const PART = /<span class="([^"]*)">|<\/span>|&[^;]+;|[^<&]+/g;

/** Reads the library's HTML: lengths and kinds of the runs, in turn. */
function runsOf(html) {
  const runs = [];
  const open = [0];
  for (const [part, scope] of html.matchAll(PART)) {
    if (scope !== undefined) open.push(kindOf(scope, open.at(-1)));
    else if (part === "</span>") open.pop();
    else addRun(runs, part.startsWith("&") ? ENTITIES[part].length : part.length, open.at(-1));
  }
  return runs;
}

/** `outer`: kind of the text around it. */
function kindOf(scope, outer) {
  const [, name] = /^hljs-([\w-]+)/.exec(scope) ?? [];
  return KIND_OF.get(name) ?? outer;
}

function addRun(runs, length, kind) {
  if (runs.at(-1) === kind && runs.length > 0) runs[runs.length - 2] += length;
  else runs.push(length, kind);
}

addEventListener("message", ({ data: { text, language } }) => {
  postMessage(runsOf(hljs.highlight(text, { language, ignoreIllegals: true }).value));
});

postMessage("ready");
