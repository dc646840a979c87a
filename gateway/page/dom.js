// Creates elements. Text becomes text nodes, never HTML.

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function smallButton(text) {
  const made = element("button", "small", text);
  made.type = "button";
  return made;
}
