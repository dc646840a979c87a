// Formulas as MathML, which needs no fonts of ours and no styles in the markup. The renderer of TeX is loaded with the
// first formula. Until then, and for TeX that it does not know, the source is shown.

import { later } from "./later.js";

const LONGEST = 2000; // characters
const MOST_KEPT = 500;

/** Rendered formulas by class and source; null: the source is shown. A streaming paragraph is drawn again and again. */
const rendered = new Map();
let renderer = null;

/** Replaces the source of each formula in `root`, now if it was rendered before, else soon; then calls `onShown`. */
export function showFormulas(root, onShown) {
  for (const place of root.querySelectorAll(".formula")) {
    const known = rendered.get(keyOf(place));
    if (known) draw(place, known);
    else if (known === undefined) renderLater(place, onShown);
  }
}

const keyOf = (place) => `${place.className} ${place.textContent}`;

/** Shows MathML in place of the source, which is kept for announcements. */
function draw(place, made) {
  place.dataset.source = place.textContent;
  place.replaceChildren(made.cloneNode(true));
}

async function renderLater(place, onShown) {
  const key = keyOf(place);
  if (place.textContent.length > LONGEST) return;
  renderer ??= load();
  const render = await renderer;
  if (!render) return;
  later(() => {
    if (!rendered.has(key)) keep(key, render(place.textContent, place.classList.contains("display")));
    const made = rendered.get(key);
    if (!made || !place.isConnected) return;
    draw(place, made);
    onShown();
  });
}

function keep(key, made) {
  if (rendered.size >= MOST_KEPT) rendered.delete(rendered.keys().next().value);
  rendered.set(key, made);
}

/** Loads the renderer; without it, formulas remain source until the next one is met. */
async function load() {
  try {
    const { render } = await import("./formula_renderer.js");
    return render;
  } catch {
    renderer = null;
    return null;
  }
}
