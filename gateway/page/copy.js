// Copying to the clipboard. Browsers allow it on HTTPS and on localhost only; elsewhere the text is left selected.

async function copyText(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}

/** Makes `button` copy the text of `node`, with a confirmation on the button. */
export function copyOnClick(button, node) {
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(node)) ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}
