// Chat page: connects the parts, and holds the conversation and the answer that is being read.

import { cancelChat, deleteChat, startChat } from "./api.js";
import { Answer, pastAnswer, question } from "./answer.js";
import { copyOnClick } from "./copy.js";
import { FormatChoice, isJson } from "./format.js";
import { History, titleOf } from "./history.js";
import { watchPage } from "./page_lifecycle.js";
import { keep, ownerMark, watchKey } from "./key.js";
import { ConnectionPanel } from "./connection.js";
import { ModelChoice } from "./models.js";
import { StreamReader } from "./stream.js";
import { Composer, Scroller, showCurl, Sidebar } from "./ui.js";

const byId = (id) => document.getElementById(id);
const TAB_KEY = "headrace.current"; // in sessionStorage: this tab's stream; a reload resumes it
const FINAL_STATES = new Set(["done", "error", "cancelled"]);

const connection = new ConnectionPanel();
const models = new ModelChoice(byId("model"), byId("model-name-field"), byId("model-note"));
const format = new FormatChoice(byId("options"));
const scroller = new Scroller(byId("scroll"), byId("to-end"));
const sidebar = new Sidebar(byId("sidebar"), byId("menu"), byId("scrim"));
const streams = new History(byId("history"), byId("history-note"), { open: reopen, remove });
const composer = new Composer({ send, stop });

let messages = []; // the conversation, as the next request sends it
let turn = null; // the answer on the screen: {answer, state, entry?, reader?, wantsStop?, hasFailed?}

function send(prompt) {
  const choice = models.get();
  const form = format.get();
  if (!choice || !form || (turn && !FINAL_STATES.has(turn.state))) return false;
  format.fold();
  submit([...messages, { role: "user", content: prompt }], { ...choice, ...form });
  return true;
}

/** Submits `conversation`, which ends with the prompt, and reads the answer. `choice`: the other request fields. */
async function submit(conversation, choice) {
  const mine = begin(conversation, choice);
  const owner = ownerMark();
  try {
    const body = { ...choice, messages: conversation, on_disconnect: "continue" };
    const started = await startChat(body, (problem) => show(mine, "queued", `${problem} (retrying)`));
    mine.entry = {
      id: started.id,
      title: titleOf(conversation.at(-1).content),
      at: Date.now(),
      state: "queued",
      choice,
      messages: conversation,
      streamUrl: started.url.slice(location.origin.length),
      statusUrl: `/chat/${started.id}`,
      owner,
    };
    streams.add(mine.entry);
  } catch (error) {
    fail(mine, "The request could not be sent.", error.message, () => submit(conversation, choice));
    return;
  }
  if (mine.wantsStop) stopAtGateway(mine);
  if (mine === turn) read(mine);
}

/** Reads a stream again, from its start. */
function reopen(entry) {
  const mine = begin(entry.messages, entry.choice);
  mine.entry = entry;
  sidebar.close();
  read(mine);
}

/** Shows the conversation, with an empty answer at its end. */
function begin(conversation, choice) {
  leave();
  messages = conversation;
  byId("empty").hidden = true;
  const answer = new Answer(() => scroller.follow());
  if (isJson(choice)) answer.showAsJson();
  answer.markCurrent();
  byId("messages").replaceChildren(
    ...conversation.map(({ role, content }) => (role === "user" ? question(content) : pastAnswer(content))),
    answer.element,
  );
  turn = { answer, state: "" };
  connection.follow(null);
  show(turn, "queued");
  scroller.toEnd();
  return turn;
}

/** Stops reading. Generation continues, and the stream stays in the list. */
function leave() {
  turn?.reader?.close();
  turn = null;
}

function read(mine) {
  const { answer, entry } = mine;
  keep(sessionStorage, TAB_KEY, entry.id);
  streams.select(entry.id);
  mine.reader = new StreamReader(entry, {
    counted: () => connection.count(),
    state(name) {
      show(mine, name);
      if (name === "streaming" && !FINAL_STATES.has(entry.state)) streams.setState(entry.id, name);
    },
    queued: ({ position }) => show(mine, "queued", position ? `position ${position} in the queue` : ""),
    start: (start) => answer.setSource(start),
    reset({ attempt }) {
      answer.reset();
      show(mine, "streaming", `attempt ${attempt}: another worker restarts the answer`);
    },
    token: ({ token }) => answer.append(token),
    reasoning: ({ text }) => answer.reasoning.append(text),
    refusal: ({ text }) => answer.refusal.append(text),
    tool_call: (call) => answer.calls.take(call),
    json: (piece) => answer.setValue(piece),
    error({ code, message, retryable }) {
      mine.hasFailed = true;
      answer.fail(message, code, retryable && (() => submit(entry.messages, entry.choice)));
    },
    done: (done) => settle(mine, done),
    lost: (message) => fail(mine, "The stream cannot be read.", message),
  });
  connection.follow(mine.reader);
  show(mine, "queued");
  mine.reader.open();
}

function settle(mine, done) {
  const state = { cancelled: "cancelled", error: "error" }[done.finish_reason] ?? "done";
  const { answer, entry } = mine;
  if (state === "error" && !mine.hasFailed) answer.fail("The answer failed.", done.reason ?? "");
  answer.finish(done);
  if (answer.text) messages = [...entry.messages, { role: "assistant", content: answer.text }];
  streams.setState(entry.id, state);
  show(mine, state);
}

/** Shows a problem after which nothing more can be read. The stream's state in the list stays. */
function fail(mine, title, detail, retry) {
  mine.answer.fail(title, detail, retry);
  mine.answer.finish(null);
  show(mine, "error");
}

/** Without `note`, a state that is already shown keeps its note. */
function show(mine, state, note) {
  if (mine !== turn || (mine.state === state && note === undefined)) return;
  mine.state = state;
  connection.show(state, note);
  composer.setLive(!FINAL_STATES.has(state));
}

function stop() {
  if (turn.entry) stopAtGateway(turn);
  else turn.wantsStop = true; // not queued yet
}

/** Cancels the stream; its `done` event then ends the answer. */
async function stopAtGateway(mine) {
  try {
    await cancelChat(mine.entry.id);
  } catch (error) {
    show(mine, mine.state, `could not stop: ${error.message}`);
    composer.allowStop();
  }
}

async function remove(entry) {
  try {
    await deleteChat(entry.id);
  } catch (error) {
    streams.showProblem(`“${entry.title}” could not be deleted: ${error.message}.`);
    return;
  }
  streams.remove(entry.id);
  if (turn?.entry?.id === entry.id) startNewChat();
}

function startNewChat() {
  leave();
  messages = [];
  byId("messages").replaceChildren();
  byId("empty").hidden = false;
  connection.hide();
  sessionStorage.removeItem(TAB_KEY);
  streams.select(null);
  sidebar.close();
  composer.setLive(false);
  composer.focus();
}

watchPage({
  away: () => turn?.reader?.close(),
  back: () => connection.isAway() || turn?.reader?.open(),
});
byId("new-chat").addEventListener("click", startNewChat);
byId("model").addEventListener("chosen", () => showCurl(byId("curl"), models.peek()));
showCurl(byId("curl"), models.peek());
copyOnClick(byId("copy-curl"), byId("curl"));
watchKey();
models.load();
const previous = streams.find(sessionStorage.getItem(TAB_KEY));
if (previous) reopen(previous);
composer.focus();
