// Messages of a request: the user's question and, of requests of other programs, instructions, tool results and
// answers.

import { imagesOf, nameOf, shownText } from "./content.js";
import { copyOnClick } from "./copy.js";
import { element, smallButton } from "./dom.js";
import { pastAnswer } from "./past_answer.js";

const FOLDED = { system: "Instructions", developer: "Instructions", tool: "Tool result" };

/** `edit`: handler of a question's Edit button, which gets the question's element. */
export function messageElement({ role, content }, edit) {
  if (role === "assistant") return pastAnswer(shownText(content));
  return FOLDED[role] ? folded(FOLDED[role], shownText(content)) : question(content, edit);
}

function question(content, edit) {
  const message = element("article", "message user");
  const images = imagesOf(content);
  const text = shownText(content);
  message.append(element("h3", "hidden", "You"));
  if (images.length > 0) message.append(imageList(images));
  const bubble = element("div", "bubble", text);
  bubble.dir = "auto";
  if (text) message.append(bubble);
  message.append(actions(message, bubble, text, edit));
  return message;
}

function imageList(images) {
  const list = element("ul", "images");
  for (const part of images) {
    const item = element("li");
    item.append(imageElement(part));
    list.append(item);
  }
  return list;
}

export function imageElement(part) {
  const image = element("img");
  image.alt = nameOf(part);
  image.src = part.image_url.url;
  image.decoding = "async";
  return image;
}

function actions(message, bubble, text, edit) {
  const row = element("div", "actions quiet");
  const copy = smallButton("Copy");
  copy.title = "Copy question";
  copyOnClick(copy, bubble, () => text);
  const change = smallButton("Edit");
  change.classList.add("edit");
  change.title = "Edit question";
  change.addEventListener("click", () => edit(message));
  if (text) row.append(copy);
  row.append(change);
  return row;
}

function folded(title, text) {
  const message = element("details", "message given");
  message.append(element("summary", "", title), element("div", "said", text));
  return message;
}
