// Box in which the user edits a question of the chat.

import { Attachments } from "./attachments.js";
import { contentOf, imagesOf, otherPartsOf, textIn } from "./content.js";
import { element, smallButton } from "./dom.js";

let count = 0; // of boxes, for their ids

/** Replaces the question's element by a box until Cancel or Save. `save(content)` resolves with a problem, or with
 *  null once the question is sent. */
export function editQuestion(message, content, save) {
  if (message.querySelector("form")) return;
  const close = () => {
    box.remove();
    message.classList.remove("editing");
  };
  const box = new QuestionBox(content, {
    save: async (edited) => {
      const problem = await save(edited);
      if (problem) box.attachments.say(problem, true);
      else close(); // the turn is still there, as an earlier version
    },
    cancel: () => {
      close();
      message.querySelector(".edit").focus();
    },
  });
  message.classList.add("editing");
  message.append(box.form);
  box.start();
}

class QuestionBox {
  constructor(content, on) {
    this.on = on;
    this.others = otherPartsOf(content);
    count += 1;
    this.form = element("form", "editor");
    this.field = element("textarea");
    Object.assign(this.field, { id: `edited-${count}`, dir: "auto", rows: 2, value: textIn(content) });
    this.field.setAttribute("enterkeyhint", "send");
    const label = element("label", "hidden", "Your question");
    label.htmlFor = this.field.id;
    this.attachments = new Attachments(this.field);
    this.attachments.fill(imagesOf(content));
    this.attachments.takeDrops(this.form);
    this.form.append(label, this.attachments.list, this.field, this.attachments.note, this.buttons());
    this.form.addEventListener("keydown", (event) => this.pressed(event));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  buttons() {
    const row = element("div", "buttons");
    const note = element("span", "quiet", "What follows is asked anew.");
    const cancel = smallButton("Cancel");
    this.send = smallButton("Save");
    this.send.type = "submit";
    this.send.classList.add("primary");
    cancel.addEventListener("click", () => this.on.cancel());
    row.append(this.attachments.input, this.attachments.button, note, cancel, this.send);
    return row;
  }

  start() {
    this.field.focus();
    this.field.setSelectionRange(this.field.value.length, this.field.value.length);
    // The keyboard of a phone takes room from the conversation.
    this.resized = new ResizeObserver(() => this.form.scrollIntoView({ block: "nearest" }));
    this.resized.observe(document.getElementById("scroll"));
  }

  remove() {
    this.resized.disconnect();
    this.form.remove();
  }

  pressed(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation(); // it would stop an answer
      this.on.cancel();
    } else if (event.key === "Enter" && !event.shiftKey && event.target === this.field) {
      event.preventDefault();
      this.form.requestSubmit();
    }
  }

  async save() {
    const { images, isBusy } = this.attachments;
    const text = this.field.value.trim();
    if (isBusy || this.send.disabled) return; // a second Enter would ask twice
    if (!text && images.length === 0) return this.attachments.say("The question is empty.", true);
    this.send.disabled = true;
    await this.on.save(contentOf(text, images, this.others));
    this.send.disabled = false;
  }
}
