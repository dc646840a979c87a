// Limits for Markdown. The parser takes quadratic time for some texts, and its recursion can exceed the stack. What is
// counted here does not depend on the speed of the machine.

const LIMITS = {
  characters: 256 * 1024,
  outsideCode: 64 * 1024, // characters outside fenced code
  lines: 1500, // outside fenced code
  marks: 3000, // characters that begin or end emphasis, links, code, HTML, table cells and formulas
  marksInLine: 400,
  depth: 24, // nested quotes and lists
  nesting: 2000, // sum of the depths of all lines
  addresses: 4_000_000, // sum of the squared lengths of the names before @
};
const FENCE = /^[\s>]*(`{3,}|~{3,})/;
const MARK = /[[\]()*_`~<>!|&\\$]/g;
/** Characters that a mail address may have before its @. The parser looks for the @ from each of them. */
const ADDRESS = /[\w.!#$%&'*+/=?^`{|}~-]+@?/g;
/** Quotes, list items and indentation at the beginning of a line. */
const NESTING = /^(?:\s{0,1}(?:>|[-+*]|\d{1,9}[.)])(?=\s|>|$)|[ \t]{2})+/;
const CONTAINER = />|[-+*]|\d{1,9}[.)]|[ \t]{2}/g;

/** Returns true if `text` is too large or too complex to be parsed as Markdown. */
export function isTooComplex(text) {
  if (text.length > LIMITS.characters) return true;
  let [characters, lines, marks, nesting, addresses, fence] = [0, 0, 0, 0, 0, ""];
  for (const line of text.split("\n")) {
    const found = FENCE.exec(line)?.[1];
    if (fence) {
      if (found?.startsWith(fence)) fence = "";
      continue;
    }
    if (found) fence = found;
    const inLine = line.match(MARK)?.length ?? 0;
    const depth = NESTING.exec(line)?.[0].match(CONTAINER).length ?? 0;
    if (inLine > LIMITS.marksInLine || depth > LIMITS.depth) return true;
    characters += line.length;
    lines += 1;
    marks += inLine;
    nesting += depth;
    addresses += costOfAddresses(line);
    if (addresses > LIMITS.addresses || nesting > LIMITS.nesting) return true;
    if (characters > LIMITS.outsideCode || lines > LIMITS.lines || marks > LIMITS.marks) return true;
  }
  return false;
}

function costOfAddresses(line) {
  if (!line.includes("@")) return 0;
  let cost = 0;
  for (const [found] of line.matchAll(ADDRESS)) if (found.endsWith("@")) cost += found.length ** 2;
  return cost;
}
