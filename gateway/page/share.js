// Dialog that opens what is on the screen on another device, by a link or its QR code. No link has a key: it either
// opens the chat, for which the other device needs a key, or has a ticket that reads one answer.

import { addressOfChat, addressOfStream } from "./address.js";
import { makeTicket, needsKey } from "./api.js";
import { copyOnClick } from "./copy.js";
import { element } from "./dom.js";
import { qrCode } from "./qr.js";

const byId = (id) => document.getElementById(id);
const LOOPBACK = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/;

const isLocal = () => LOOPBACK.test(location.hostname);
const timeOf = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

class ShareDialog {
  constructor() {
    this.dialog = byId("share-dialog");
    this.choice = byId("share-choice");
    this.code = byId("share-code");
    this.link = byId("share-link");
    this.about = byId("share-about");
    this.warning = byId("share-warning");
    this.problem = byId("share-problem");
    this.opened = 0; // a response for a dialog that was closed meanwhile is ignored
    this.choice.addEventListener("change", () => this.update());
    this.dialog.addEventListener("close", () => this.clear());
    byId("share-close").addEventListener("click", () => this.dialog.close());
    this.link.addEventListener("focus", () => this.link.select());
    copyOnClick(byId("share-copy"), this.link, () => this.link.value);
  }

  async open(chat, stream) {
    this.clear();
    this.chat = chat;
    this.stream = stream;
    this.choice.hidden = true;
    this.dialog.showModal();
    const mine = this.opened;
    try {
      this.isProtected = await needsKey();
    } catch (error) {
      return this.fail(mine, error);
    }
    if (mine !== this.opened) return;
    const hasAnswer = this.isProtected && Boolean(stream);
    this.choice.hidden = !hasAnswer;
    this.choice.querySelector(`[value="${hasAnswer ? "answer" : "chat"}"]`).checked = true;
    await this.update();
  }

  fail(mine, error) {
    if (mine === this.opened) this.problem.textContent = `There is no link: ${error.message}.`;
  }

  /** Removes the link: it may have a ticket. */
  clear() {
    this.opened += 1;
    this.link.value = "";
    this.code.replaceChildren();
    this.about.textContent = this.warning.textContent = this.problem.textContent = "";
  }

  async update() {
    this.clear();
    const mine = this.opened;
    const isAnswer = this.choice.querySelector(":checked").value === "answer";
    try {
      const { link, about } = isAnswer ? await linkToAnswer(this.stream) : linkToChat(this.chat, this.isProtected);
      if (mine !== this.opened) return;
      this.link.value = link;
      this.about.textContent = about;
      if (isLocal()) this.warning.append(...warningOfLocal(this.isProtected));
      else this.code.append(qrCode(link, "QR code of the link"));
    } catch (error) {
      this.fail(mine, error);
    }
  }
}

async function linkToAnswer(stream) {
  const { stream_url: url, expires_at: at } = await makeTicket(stream);
  const about =
    `Whoever has this link can read this answer, also while it is being written, until ${timeOf(at)}, or ` +
    "until your key is revoked. The link cannot read the rest of the chat, ask, stop or delete.";
  return { link: addressOfStream(url), about };
}

function linkToChat(chat, isProtected) {
  const about = isProtected
    ? "The link has no key in it: the other device asks for one. Only a key of the same owner opens the chat."
    : "This gateway requires no key: whoever can reach it can read this chat, also while an answer is being written, " +
      "and ask in it.";
  return { link: addressOfChat(chat), about };
}

function warningOfLocal(isProtected) {
  return [
    `Another device cannot open this link: ${location.hostname} is each device's name for itself. Start Headrace with `,
    element("code", "", "headrace up --host 0.0.0.0"),
    ...(isProtected ? [] : [" and ", element("code", "", "HEADRACE_AUTH=keys")]),
    ", and open this page by the name or address that this machine has in the network.",
  ];
}

const dialog = new ShareDialog();

/** `stream`: the last answer of the chat. */
export const openShareDialog = (chat, stream) => dialog.open(chat, stream);
