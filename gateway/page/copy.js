// Copying to the clipboard, which is open to pages on HTTPS and on localhost only; elsewhere the text is left selected.

async function copied(node) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(node);
    return document.execCommand("copy");
  }
}

/** Makes `button` copy the text of `node`, and say so. */
export function copies(button, node) {
  button.addEventListener("click", async () => {
    button.textContent = (await copied(node)) ? "Copied" : "Selected";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
}
