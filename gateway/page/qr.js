// QR codes as SVG, which no style sheet and no dark mode changes: readers need dark on light, and a light margin.

import { encode } from "./vendor/uqr.js";

const MARGIN = 4; // modules, as the standard requires
const SVG = "http://www.w3.org/2000/svg";

function svgElement(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Draws `text`; `label` is for screen readers. */
export function qrCode(text, label) {
  const { size, data } = encode(text, { border: MARGIN });
  const dark = data.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? `M${x} ${y}h1v1h-1z` : [])));
  const drawn = svgElement("svg", { viewBox: `0 0 ${size} ${size}`, "shape-rendering": "crispEdges", role: "img" });
  drawn.setAttribute("aria-label", label);
  drawn.append(
    svgElement("rect", { width: size, height: size, fill: "#fff" }),
    svgElement("path", { d: dark.join(""), fill: "#000" }),
  );
  return drawn;
}
