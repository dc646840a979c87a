// Renders TeX as MathML. Three barriers: the renderer refuses commands that make links, images, classes or HTML; the
// result passes DOMPurify with a list of MathML's elements; and of the styles that the renderer sets on nodes, which
// the Content-Security-Policy allows to scripts, only known ones remain. Colours do not: they would be chosen for a
// background that the reader may not have.

import { element } from "./dom.js";

const OPTIONS = { throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 200] };
const DEEPEST = 40; // elements in elements; Chromium's layout of some hundred ends its process
const DELIMITERS = /^(?:\$\$|\\\[|\\\(|\$)|(?:\$\$|\\\]|\\\)|\$)$/g;
const ALLOWED = {
  ALLOWED_TAGS: (
    "math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle " +
    "msub msubsup msup mtable mtd mtext mtr munder munderover span #text"
  ).split(" "),
  ALLOWED_ATTR: (
    "accent accentunder class columnspan depth dir display displaystyle fence form height largeop linethickness lspace " +
    "mathbackground mathsize mathvariant maxsize minsize movablelimits notation rowspan rspace scriptlevel " +
    "separator stretchy style symmetric voffset width"
  ).split(" "),
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  IN_PLACE: true,
};
const STYLES = /^(?:padding|border|text-align|width|height|font-weight|font-style|math-depth|display|white-space)(?!.*color)/;

const purify = window.DOMPurify(window); // loaded for Markdown; an instance of its own has hooks of its own
purify.addHook("afterSanitizeAttributes", (node) => {
  const { style } = node;
  for (const name of [...(style ?? [])]) if (!STYLES.test(name)) style.removeProperty(name);
  if (node.localName !== "mspace") node.removeAttribute?.("mathbackground"); // there it draws a rule
});

const loaded = Promise.all([loadStyles(), loadScript()]);

function loadScript() {
  const script = element("script");
  script.src = "/page/vendor/temml.min.js"; // sets window.temml
  return append(script);
}

function loadStyles() {
  const link = element("link");
  link.rel = "stylesheet";
  link.href = "/page/formulas.css";
  return append(link);
}

function append(node) {
  return new Promise((resolve, reject) => {
    node.addEventListener("load", resolve);
    node.addEventListener("error", reject);
    document.head.append(node);
  });
}

await loaded;

/** MathML of a formula with its delimiters; null if it is no valid TeX. */
export function render(source, isDisplay) {
  const holder = element("span");
  try {
    window.temml.render(source.replace(DELIMITERS, ""), holder, { ...OPTIONS, displayMode: isDisplay });
    return isDeep(holder) ? null : purify.sanitize(holder, ALLOWED).firstElementChild;
  } catch {
    return null; // the source stays
  }
}

function isDeep(root) {
  let level = [root];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > DEEPEST) return true;
    level = level.flatMap(({ children }) => [...children]);
  }
  return false;
}
