// Formulas in Markdown: $$…$$, \[…\], \(…\) and $…$ in a text become tokens with their TeX. The parser finds code first,
// so nothing in code is a formula. Prices, variables of shells and escaped brackets stay text: a formula that is not
// recognised shows its source, but a sentence between two prices must never become one.

const OPENING = /^ {0,3}(\$\$|\\\[)/;
const CLOSING = { "$$": "$$", "\\[": "\\]" };
const BLANK_LINE = /\n[ \t]*\n/;
const INLINE = [
  [/^\$\$((?:\\[^]|[^$\\`])+)\$\$(?!\$)/, true],
  [/^\\\[((?:(?!\\[[\]])[^`])+)\\\]/, true],
  [/^\\\(((?:(?!\\[()])[^`])+)\\\)/, false],
  [/^\$((?:\\.|[^$\\\n`])+)\$(?![\w${(])/, false],
];
const TEX = /\\[a-zA-Z,;:!{|\\]|[\^_{}]/;
const OPERATOR = /[=<>≤≥≠≈+*/−-]/;
/** A word of a language, which a formula has only in a command of TeX. */
const WORD = /\p{L}{3}|(?:^|\s)\p{Ll}{2,}\s|[€£¥]|\*\*/u;

/** What is between two prices, as in $5, 6$. */
const isAmount = (text) => /^\d/.test(text) && !TEX.test(text) && /[,;:.!?]\s/.test(text);
const isProse = (text) => !TEX.test(text) && WORD.test(text);

/** Display formula at the beginning of a line. Without its end, it is all of the text, as the end may still come. */
function displayAt(source) {
  const found = OPENING.exec(source);
  if (!found) return undefined;
  const [opening, marks] = found;
  const rest = source.slice(opening.length);
  const paragraph = rest.slice(0, (BLANK_LINE.exec(rest)?.index ?? rest.length - 1) + 1);
  const end = paragraph.indexOf(CLOSING[marks]);
  if (end < 0) {
    const isComing = paragraph.length === rest.length && /^[ \t]*\n/.test(rest);
    return isComing ? { type: "formula", raw: source, isDisplay: true } : undefined;
  }
  const tex = paragraph.slice(0, end);
  const [after] = /^[^\n]*\n?/.exec(rest.slice(end + 2));
  if (after.trim() || !isDisplay(tex, marks)) return undefined;
  return { type: "formula", raw: opening + tex + CLOSING[marks] + after, isDisplay: true };
}

/** Where a paragraph may end because a display formula begins. */
function startOfDisplay(source) {
  const newline = source.search(/\n {0,3}(?:\$\$|\\\[)/);
  return newline < 0 ? undefined : newline + 1;
}

/** \[1\] is an escaped bracket: what is between such marks has to look like a formula. */
function isDisplay(tex, marks) {
  if (!tex.trim() || tex.includes("`") || isProse(tex)) return false;
  return marks === "$$" || TEX.test(tex) || OPERATOR.test(tex);
}

function inlineAt(source, before) {
  for (const [pattern, display] of INLINE) {
    const found = pattern.exec(source);
    if (found && isInline(found[1], found[0].slice(0, 2), before)) {
      return { type: "formula", raw: found[0], isDisplay: display };
    }
  }
  return undefined;
}

/** `before`: the character in front of the formula. */
function isInline(tex, marks, before) {
  if (marks === "$$" || marks === "\\[") return isDisplay(tex, marks);
  if (marks === "\\(") return Boolean(tex.trim()) && !isProse(tex);
  return !/[\w$\\]/.test(before) && tex.trim() === tex && !isProse(tex) && !isAmount(tex);
}

/** Extension of the Markdown parser. `render` turns a token into HTML. */
export const formulas = (render) => ({
  extensions: [
    { name: "formula", renderer: render },
    {
      name: "display formula",
      level: "block",
      start: startOfDisplay,
      tokenizer: displayAt,
    },
    {
      name: "inline formula",
      level: "inline",
      start: (source) => /\$|\\[([]/.exec(source)?.index,
      tokenizer: (source, tokens) => inlineAt(source, tokens.at(-1)?.raw.at(-1) ?? ""),
    },
  ],
});
