// Chat page: connects the parts. The address says what it shows: a chat, a single answer, or a new chat.

import { readAddress, setAddress, streamUrlOf, watchAddress } from "./address.js";
import { describeEnd } from "./announcement.js";
import { ChatList } from "./chats.js";
import { ConnectionPanel } from "./connection.js";
import { contentOf } from "./content.js";
import { Conversation } from "./conversation.js";
import { copyOnClick } from "./copy.js";
import { draftOf, keepDraft } from "./drafts.js";
import { FormatChoice } from "./format.js";
import { watchKey } from "./key.js";
import { keepAboveKeyboard } from "./keyboard_space.js";
import { ModelChoice } from "./models.js";
import { watchPage } from "./page_lifecycle.js";
import { editQuestion } from "./question_edit.js";
import { Composer, Notice, Scroller, showCurl, Sidebar } from "./ui.js";

const byId = (id) => document.getElementById(id);
const shareButton = byId("share");
const NO_SUCH_CHAT = new Set([404, 410, 422]);

const connection = new ConnectionPanel();
const models = new ModelChoice(byId("model"), byId("model-name-field"), byId("model-note"));
const format = new FormatChoice(byId("options"));
const scroller = new Scroller(byId("scroll"), byId("to-end"));
const sidebar = new Sidebar(byId("sidebar"), byId("menu"), byId("scrim"));
const notice = new Notice(byId("notice"), startNewChat);
const composer = new Composer({ send, stop, typed: (text, images) => keepDraft(chatId, text, images) });
const chats = new ChatList(byId("history"), byId("history-note"), byId("older"), {
  changed: () => refresh(),
  deleted: (id) => id === chatId && startNewChat(),
});
const conversation = new Conversation(byId("messages"), {
  added: () => connection.hide(),
  state: show,
  counted: () => connection.count(),
  retry,
  regenerate: (turn) => replace(turn, turn.messages),
  edit,
  ended: (turn, done) => announceEnd(turn, done),
  rendered: () => scroller.follow(),
});

let chatId = null; // null: a new chat, which gets its id with its first question

/** 128 random bits. `crypto.randomUUID` exists only over HTTPS and on localhost. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The other fields of a request; null if one is missing, which then gets the focus. */
function choose() {
  const model = models.get();
  const form = model && format.get();
  return form && { ...model, ...form };
}

function send(text, images) {
  const choice = choose();
  if (!choice || conversation.isLive) return false;
  format.fold();
  keepDraft(chatId, "");
  ask([{ role: "user", content: contentOf(text, images) }], choice);
  return true;
}

/** Tells screen readers that the answer has ended, and what it says. */
function announceEnd(turn) {
  byId("ended").textContent = describeEnd(turn);
}

async function stop() {
  const isAccepted = await conversation.last?.stop();
  if (!isAccepted) composer.allowStop();
}

/** Asks in the open chat; the gateway adds its earlier turns. `replaced`: a turn to replace, with all after it. */
async function ask(messages, choice, replaced = null) {
  const id = chatId ?? newId();
  byId("empty").hidden = true;
  notice.hide();
  const accepted = conversation.ask(id, messages, choice, replaced);
  scroller.toEnd();
  if (!(await accepted)) return id === chatId && refresh(); // perhaps because a turn was started elsewhere
  chats.report();
  if (conversation.id !== id) return; // another chat was opened meanwhile
  chatId = id;
  setAddress(id);
  shareButton.hidden = false;
  chats.select(id);
}

/** Asks a question again, after a failure. */
function retry(turn) {
  if (conversation.isLive) return;
  const choice = turn.choice ?? choose();
  if (!choice) return;
  const isLast = turn.isRefused || turn === conversation.last; // later answers are not given up for it
  if (isLast && conversation.canReplace(turn)) replace(turn, turn.messages, choice);
  else ask(turn.messages, choice);
}

/** Asks messages instead of a turn and all after it. Resolves with a problem, or with null. */
async function replace(turn, messages, choice = choose()) {
  if (!choice) return "Choose a model, and check the options of the answer.";
  if (conversation.isLive) return "An answer is coming: wait for its end, or stop it.";
  // Another device may have deleted the chat, which would begin again, or may have asked in it.
  if (turn.id && !(await refresh())) return "The chat could not be read.";
  if (conversation.isLive || !conversation.canReplace(turn)) return "The chat has changed meanwhile.";
  ask(messages, choice, turn);
  // The button that had the focus is hidden now. On a phone the prompt would raise the keyboard.
  (matchMedia("(hover: none)").matches ? byId("scroll") : composer).focus();
  return null;
}

function edit(turn, message, shown) {
  editQuestion(shown, message.content, (content) => {
    const before = turn.messages.slice(0, turn.messages.indexOf(message));
    return replace(turn, [...before, { ...message, content }]);
  });
}

function show(turn, note) {
  const { reader, state, isLive } = turn;
  composer.setLive(isLive);
  if (!reader && !isLive && connection.isHidden) return; // it had ended before
  if (connection.isHidden || connection.reader !== reader) connection.follow(reader);
  connection.show(state, note);
  if (!reader || !chatId) return;
  chats.setState(chatId, state);
  if (!isLive) chats.report();
}

/** Shows what the address says. */
async function route() {
  const address = readAddress();
  sidebar.close();
  notice.hide();
  showOnlyAnswer(address.stream !== null);
  if (address.stream) return showAnswer(address);
  startLists();
  if (!address.chat) return showNewChat();
  if (address.chat === chatId) return refresh();
  begin(address.chat);
  byId("empty").hidden = true;
  await refresh();
  scroller.toEnd();
}

/** Empties the page for a chat. */
function begin(id) {
  conversation.clear();
  connection.hide();
  chatId = id;
  conversation.id = id;
  chats.select(id);
  shareButton.hidden = id === null;
  composer.setLive(false);
  composer.fill(draftOf(id));
}

/** Reads the open chat again. Resolves with false if it is not on the screen as the gateway has it. */
async function refresh() {
  const id = chatId;
  try {
    await conversation.refresh();
    return id === chatId;
  } catch (error) {
    if (id !== chatId) return false;
    if (NO_SUCH_CHAT.has(error.status)) {
      if (!conversation.last) begin(null); // else it is still of use to read
      notice.show("There is no such chat here. It was deleted, it has expired, or it belongs to another key.");
    } else notice.show(`The chat could not be read: ${error.message}.`);
    return false;
  }
}

/** Hides the prompt and the models, where nothing can be asked. */
function showOnlyAnswer(isOnly) {
  document.body.classList.toggle("only-answer", isOnly);
}

function showAnswer(address) {
  begin(null);
  byId("empty").hidden = true;
  try {
    conversation.openStream(streamUrlOf(address));
    notice.show("You are reading a single answer by a link.");
  } catch {
    conversation.clear();
    notice.show("This link is incomplete: it names no answer.");
  }
}

function startNewChat() {
  setAddress(null);
  showNewChat();
}

function showNewChat() {
  notice.hide();
  showOnlyAnswer(false);
  startLists();
  begin(null);
  byId("empty").hidden = false;
  sidebar.close();
  composer.focus();
}

/** Reads what needs a key. A link to a single answer needs none. */
let areListsStarted = false;
function startLists() {
  if (areListsStarted) return;
  areListsStarted = true;
  models.load();
  chats.start();
}

watchPage({
  away: () => conversation.close(),
  back() {
    if (!connection.isAway()) conversation.reopen();
    chats.refresh();
  },
});
async function share() {
  const { openShareDialog } = await import("./share.js"); // few visits need it
  openShareDialog(chatId, conversation.last?.id);
}

watchAddress(route);
shareButton.addEventListener("click", share);
byId("new-chat").addEventListener("click", startNewChat);
byId("model").addEventListener("chosen", () => showCurl(byId("curl"), models.peek()));
showCurl(byId("curl"), models.peek());
copyOnClick(byId("copy-curl"), byId("curl"));
watchKey();
keepAboveKeyboard();
route();
composer.focus();
