// Keeps the prompt above the keyboard of a phone. Browsers that make the page smaller themselves, as the viewport's
// `interactive-widget` demands, need no help; Safari only covers it.

export function keepAboveKeyboard(root = document.documentElement, view = window.visualViewport) {
  if (!view) return;
  const fit = () => {
    const isCovered = view.scale < 1.01 && root.clientHeight - view.height > 60; // not a page that was zoomed
    root.classList.toggle("keyboard", isCovered);
    root.style.setProperty("--visible-height", isCovered ? `${view.height}px` : "");
    if (isCovered) window.scrollTo(0, 0); // Safari moves the page up, too
  };
  view.addEventListener("resize", fit);
  view.addEventListener("scroll", fit);
}
