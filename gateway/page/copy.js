// Copying to the clipboard. Browsers allow it on HTTPS and on localhost only; elsewhere the text is left selected.

async function copyText(node, text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}

/** Makes `button` copy the text of `node`, or another one, with a confirmation on the button. */
export function copyOnClick(button, node, textOf = () => node.textContent) {
  const title = button.textContent;
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(node, textOf())) ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = title), 2000);
  });
}
