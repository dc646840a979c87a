// Messages of a request: the user's question and, of requests of other programs, instructions, tool results and
// answers.

import { pastAnswer } from "./past_answer.js";
import { element } from "./dom.js";

const FOLDED = { system: "Instructions", developer: "Instructions", tool: "Tool result" };

export function messageElement({ role, content }) {
  const text = textOf(content);
  if (role === "assistant") return pastAnswer(text);
  return FOLDED[role] ? folded(FOLDED[role], text) : question(text);
}

function question(text) {
  const message = element("article", "message user");
  const bubble = element("div", "bubble", text);
  bubble.dir = "auto";
  message.append(element("h3", "hidden", "You"), bubble);
  return message;
}

function folded(title, text) {
  const message = element("details", "message given");
  message.append(element("summary", "", title), element("div", "said", text));
  return message;
}

/** The text of a message. A part without text, such as an image, is named. */
export function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content.map(({ type, text }) => text ?? `[${String(type).replaceAll("_", " ")}]`).join("\n");
}
