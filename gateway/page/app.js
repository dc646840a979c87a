// The page: composes the parts, and knows the conversation and the one answer that is being read.

import { cancelChat, deleteChat, startChat } from "./api.js";
import { Answer, pastAnswer, question } from "./answer.js";
import { copies } from "./copy.js";
import { FormatChoice, isJson } from "./format.js";
import { History, titleOf } from "./history.js";
import { watchPage } from "./lifecycle.js";
import { watchKey } from "./key.js";
import { LinkPanel } from "./link.js";
import { ModelChoice } from "./models.js";
import { StreamReader } from "./stream.js";
import { Composer, Scroller, showCurl, Sidebar } from "./ui.js";

const by = (id) => document.getElementById(id);
const TAB_KEY = "headrace.current"; // in sessionStorage: this tab's stream, which a reload goes on reading
const SETTLED = new Set(["done", "error", "cancelled"]);

const link = new LinkPanel();
const models = new ModelChoice(by("model"), by("model-name-field"), by("model-note"));
const format = new FormatChoice(by("options"));
const scroller = new Scroller(by("scroll"), by("to-end"));
const sidebar = new Sidebar(by("sidebar"), by("menu"), by("scrim"));
const streams = new History(by("history"), by("history-note"), { open: reopen, remove });
const composer = new Composer({ send, stop });

let messages = []; // the conversation, as the next request will carry it
let turn = null; // the answer on the screen: {answer, state, entry?, reader?, wantsStop?, hasFailed?}

function send(prompt) {
  const choice = models.get();
  const form = format.get();
  if (!choice || !form || (turn && !SETTLED.has(turn.state))) return false;
  format.fold();
  ask([...messages, { role: "user", content: prompt }], { ...choice, ...form });
  return true;
}

/** Queues an answer to `asked`, whose last message is the prompt, and reads it. `choice` is the rest of the request. */
async function ask(asked, choice) {
  const mine = begin(asked, choice);
  try {
    const body = { ...choice, messages: asked, on_disconnect: "continue" };
    const started = await startChat(body, (why) => show(mine, "queued", `${why} (asking again)`));
    mine.entry = {
      id: started.stream_id,
      title: titleOf(asked.at(-1).content),
      at: Date.now(),
      state: "queued",
      choice,
      messages: asked,
      streamUrl: started.stream_url,
      statusUrl: started.status_url,
    };
    streams.add(mine.entry);
  } catch (error) {
    fail(mine, "It could not be sent.", error.message, () => ask(asked, choice));
    return;
  }
  if (mine.wantsStop) stopAtGateway(mine);
  if (mine === turn) read(mine);
}

/** The same stream once more, from its start. */
function reopen(entry) {
  const mine = begin(entry.messages, entry.choice);
  mine.entry = entry;
  sidebar.close();
  read(mine);
}

/** Shows the conversation, and an empty answer at its end. */
function begin(asked, choice) {
  leave();
  messages = asked;
  by("empty").hidden = true;
  const answer = new Answer(() => scroller.follow());
  if (isJson(choice)) answer.showAsJson();
  answer.markCurrent();
  by("messages").replaceChildren(
    ...asked.map(({ role, content }) => (role === "user" ? question(content) : pastAnswer(content))),
    answer.element,
  );
  turn = { answer, state: "" };
  link.follow(null);
  show(turn, "queued");
  scroller.toEnd();
  return turn;
}

/** Stops reading; the answer goes on at the gateway and stays in the list. */
function leave() {
  turn?.reader?.close();
  turn = null;
}

function read(mine) {
  const { answer, entry } = mine;
  sessionStorage.setItem(TAB_KEY, entry.id);
  streams.select(entry.id);
  mine.reader = new StreamReader(entry, {
    counted: () => link.count(),
    state(name) {
      show(mine, name);
      if (name === "streaming" && !SETTLED.has(entry.state)) streams.setState(entry.id, name);
    },
    queued: ({ position }) => show(mine, "queued", position ? `number ${position} in the queue` : ""),
    start: (start) => answer.answeredBy(start),
    reset({ attempt }) {
      answer.reset();
      show(mine, "streaming", `attempt ${attempt}: another worker answers from the start`);
    },
    token: ({ token }) => answer.append(token),
    reasoning: ({ text }) => answer.reasoning.append(text),
    refusal: ({ text }) => answer.refusal.append(text),
    tool_call: (call) => answer.calls.take(call),
    json: (piece) => answer.place(piece),
    error({ code, message, retryable }) {
      mine.hasFailed = true;
      answer.fail(message, code, retryable && (() => ask(entry.messages, entry.choice)));
    },
    done: (done) => settle(mine, done),
    lost: (message) => fail(mine, "It cannot be read.", message),
  });
  link.follow(mine.reader);
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

/** Where nothing more can be read; what the list says of the stream stays. */
function fail(mine, title, detail, retry) {
  mine.answer.fail(title, detail, retry);
  mine.answer.finish(null);
  show(mine, "error");
}

/** Without a note, a state that is shown already keeps the note that it has. */
function show(mine, state, note) {
  if (mine !== turn || (mine.state === state && note === undefined)) return;
  mine.state = state;
  link.show(state, note);
  composer.setLive(!SETTLED.has(state));
}

function stop() {
  if (turn.entry) stopAtGateway(turn);
  else turn.wantsStop = true; // not even queued yet
}

/** The end comes as the stream's own done event. */
async function stopAtGateway(mine) {
  try {
    await cancelChat(mine.entry.id);
  } catch (error) {
    show(mine, mine.state, `it could not be stopped: ${error.message}`);
    composer.allowStop();
  }
}

async function remove(entry) {
  try {
    await deleteChat(entry.id);
  } catch (error) {
    streams.complain(`“${entry.title}” could not be deleted: ${error.message}.`);
    return;
  }
  streams.remove(entry.id);
  if (turn?.entry?.id === entry.id) startAnew();
}

function startAnew() {
  leave();
  messages = [];
  by("messages").replaceChildren();
  by("empty").hidden = false;
  link.hide();
  sessionStorage.removeItem(TAB_KEY);
  streams.select(null);
  sidebar.close();
  composer.setLive(false);
  composer.focus();
}

watchPage({
  away: () => turn?.reader?.close(),
  back: () => link.isAway() || turn?.reader?.open(),
});
by("new-chat").addEventListener("click", startAnew);
by("model").addEventListener("chosen", () => showCurl(by("curl"), models.peek()));
showCurl(by("curl"), models.peek());
copies(by("copy-curl"), by("curl"));
watchKey();
models.load();
const before = streams.find(sessionStorage.getItem(TAB_KEY));
if (before) reopen(before);
composer.focus();
