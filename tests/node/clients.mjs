// One function a client, as its documentation would have it used: it asks, and fills in what its user has got.

import { HttpAgent } from '@ag-ui/client';
import Anthropic from '@anthropic-ai/sdk';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { createOpenAI } from '@ai-sdk/openai';
import { fetchEventSource } from '@microsoft/fetch-event-source';
import { AbstractChat, DefaultChatTransport, Output, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { EventSource } from 'eventsource';
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { Agent, fetch as undiciFetch } from 'undici';
import { z } from 'zod';
import { resumingFetch } from '../../examples/ag-ui/resume.js';
import { resumption } from '../../examples/react-chat/src/resume.js';

const Person = z.object({ name: z.string() });
const FORMAT = { type: 'json_schema', json_schema: { name: 'person', schema: z.toJSONSchema(Person) } };
const HELLO = [{ role: 'user', content: 'hi' }];

// With a read timeout, where that is asked for: Node's own is five minutes.
function fetchOf(ask) {
  if (!ask.readTimeoutMs) return globalThis.fetch;
  const dispatcher = new Agent({ bodyTimeout: ask.readTimeoutMs });
  return (url, init) => undiciFetch(url, { ...init, dispatcher });
}

const functions = (ask) => ask.tools?.map((name) => ({
  type: 'function', function: { name, parameters: { type: 'object' } },
}));
const keyed = (ask) => (ask.key ? { 'Idempotency-Key': ask.key } : {});
const openai = (ask) => new OpenAI({
  baseURL: `${ask.base}/v1`, apiKey: 'none', maxRetries: ask.maxRetries, fetch: fetchOf(ask),
});

async function openaiChat(ask, outcome, say) {
  const stream = openai(ask).chat.completions.stream({
    model: ask.model, messages: HELLO, stream_options: { include_usage: true },
    ...(ask.tools ? { tools: functions(ask) } : {}),
    ...(ask.structured ? { response_format: zodResponseFormat(Person, 'person') } : {}),
  }, { headers: keyed(ask) });
  for await (const chunk of stream) {
    const delta = chunk.choices[0]?.delta ?? {};
    outcome.reasoning += delta.reasoning_content ?? '';
    outcome.refusal += delta.refusal ?? '';
    if (delta.content) {
      outcome.text += delta.content;
      say();
      if (leaves(ask, outcome)) return;
    }
  }
  const completion = await stream.finalChatCompletion();
  const { message, finish_reason } = completion.choices[0];
  outcome.tools = (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
  outcome.parsed = message.parsed ?? null;
  outcome.finish = finish_reason;
  outcome.usage = [completion.usage.prompt_tokens, completion.usage.completion_tokens];
}

// Text so far decides when to leave, so that it is the same for every client.
function leaves(ask, outcome) {
  if (ask.leaveAt && outcome.text.includes(ask.leaveAt)) outcome.left = true;
  return outcome.left;
}

async function openaiResponses(ask, outcome, say) {
  const client = openai(ask);
  const options = { headers: keyed(ask) };
  let last = -1;
  let id = ask.join ?? null;
  async function read(stream) {
    for await (const event of stream) {
      last = event.sequence_number;
      id = event.response?.id ?? id;
      if (event.type === 'response.output_text.delta') { outcome.text += event.delta; say(); }
      if (event.type === 'response.reasoning_summary_text.delta') outcome.reasoning += event.delta;
      if (event.type === 'response.refusal.delta') outcome.refusal += event.delta;
      if (['response.completed', 'response.failed', 'response.incomplete'].includes(event.type)) ended(event.response);
      if (leaves(ask, outcome)) { await client.responses.cancel(id); return; }
    }
  }
  function ended(response) {
    const calls = response.output.filter((item) => item.type === 'function_call');
    outcome.tools = calls.map((call) => [call.name, JSON.parse(call.arguments)]);
    outcome.finish = response.incomplete_details?.reason ?? response.status;
    if (response.usage) outcome.usage = [response.usage.input_tokens, response.usage.output_tokens];
    if (response.error) outcome.error = { name: 'failed', status: null, ...response.error };
  }
  if (ask.join) {
    await read(await client.responses.retrieve(id, { stream: true }));
    return;
  }
  const body = { model: ask.model, input: 'hi', background: true };
  if (ask.structured) {
    const stream = client.responses.stream({ ...body, text: { format: zodTextFormat(Person, 'person') } }, options);
    await read(stream);
    outcome.parsed = (await stream.finalResponse()).output_parsed;
    return;
  }
  const tools = ask.tools?.map((name) => ({ type: 'function', name, parameters: { type: 'object' } }));
  const create = () => client.responses.create({ ...body, stream: true, ...(tools ? { tools } : {}) }, options);
  try {
    await read(await create());
  } catch (error) {
    if (!ask.resume) throw error;
    if (!id) { await read(await create()); return; }  // cut before the first event: the key finds the same answer
    await read(await client.responses.retrieve(id, { stream: true, starting_after: last }));
    const whole = client.responses.stream({ response_id: id, starting_after: 0 });  // all again, by the helper
    await whole.done();
    if ((await whole.finalResponse()).output_text !== outcome.text) throw new Error('the helper has another text');
  }
}

async function anthropic(ask, outcome, say) {
  const client = new Anthropic({ baseURL: ask.base, apiKey: 'none', maxRetries: ask.maxRetries, fetch: fetchOf(ask) });
  const stream = client.messages.stream({
    model: ask.model, max_tokens: 1000, messages: HELLO,
    ...(ask.tools ? { tools: ask.tools.map((name) => ({ name, input_schema: { type: 'object' } })) } : {}),
    ...(ask.structured ? { output_config: { format: zodOutputFormat(Person) } } : {}),
  }, { headers: keyed(ask) });
  for await (const event of stream) {
    if (event.delta?.type === 'thinking_delta') outcome.reasoning += event.delta.thinking;
    if (event.delta?.type === 'text_delta') {
      outcome.text += event.delta.text;
      say();
      if (leaves(ask, outcome)) return;
    }
  }
  const message = await stream.finalMessage();
  const calls = message.content.filter((block) => block.type === 'tool_use');
  outcome.tools = calls.map((call) => [call.name, call.input]);
  outcome.parsed = message.parsed_output ?? null;
  outcome.finish = message.stop_reason;
  outcome.usage = [message.usage.input_tokens, message.usage.output_tokens];
}

class ChatState {
  status = 'ready';
  error = undefined;
  messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, message); };
  snapshot = structuredClone;
}

class Chat extends AbstractChat {
  constructor(options) { super({ ...options, state: new ChatState() }); }
}

// The words in which each engine reports that the connection broke in the middle of a body.
const BROKEN = {
  chrome: 'network error', safari: 'Load failed', firefox: 'Error in input stream', node: 'terminated',
};

const isOver = ({ status, error }) => status === 'ready' || (status === 'error' && !(error instanceof TypeError));

// Node's `fetch`, in another engine's words.
const fetchIn = (words, inner) => async (url, init) => {
  const response = await inner(url, init);
  if (!words || !response.body) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close(); else controller.enqueue(value);
      } catch (error) {
        controller.error(error instanceof TypeError ? new TypeError(BROKEN[words]) : error);
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, response);
};

// What `useChat` wraps. Its id is the stream's key here, so that a test finds the chat again.
async function aiChat(ask, outcome, say) {
  let usage = null;
  const body = {
    ...(ask.model ? { model: ask.model } : {}),
    ...(ask.tools ? { tools: functions(ask) } : {}),
    ...(ask.structured ? { response_format: FORMAT } : {}),
  };
  const resuming = resumption(fetchIn(ask.words, fetchOf(ask)));
  const fetch = ask.resume ? resuming.fetch : fetchOf(ask);
  const chat = new Chat({
    id: ask.join ?? ask.key,
    transport: new DefaultChatTransport({ api: `${ask.base}/api/chat`, body, headers: keyed(ask), fetch }),
    onError: (error) => { if (ask.resume) resuming.onError(error, chat.resumeStream); },
    onData: (part) => { if (part.type === 'data-usage') usage = part.data; },
    onFinish: ({ finishReason }) => { outcome.finish = finishReason ?? null; },
  });
  const look = () => {
    const message = chat.messages.findLast(({ role }) => role === 'assistant');
    const parts = message?.parts ?? [];
    const joined = (kind) => parts.filter(({ type }) => type === kind).map(({ text }) => text).join('');
    if (joined('text').length > outcome.text.length) say();
    outcome.text = joined('text');
    outcome.reasoning = joined('reasoning');
    const calls = parts.filter(({ type, state }) => type.startsWith('tool-') && state === 'input-available');
    outcome.tools = calls.map((call) => [call.type.slice('tool-'.length), call.input]);
  };
  const watching = setInterval(look, 5);
  try {
    if (ask.join) {
      await chat.resumeStream();
    } else {
      const answered = chat.sendMessage({ text: 'hi' });
      while (ask.leaveAt && !outcome.text.includes(ask.leaveAt)) await new Promise((done) => setTimeout(done, 5));
      if (ask.leaveAt) {
        await globalThis.fetch(`${ask.base}/api/chat/${chat.id}/stop`, { method: 'POST' });
        outcome.left = true;
      }
      await answered;
      while (ask.resume && !isOver(chat)) await new Promise((done) => setTimeout(done, 5));
    }
    look();
  } finally {
    clearInterval(watching);
  }
  if (ask.structured) outcome.parsed = Person.parse(JSON.parse(outcome.text));
  if (usage) outcome.usage = [usage.inputTokens, usage.outputTokens];
  if (chat.messages.filter(({ role }) => role === 'assistant').length > 1) throw new Error('the answer is there twice');
  if (chat.status === 'error') throw chat.error;
}

// As a provider of `streamText`, at the API that `pick` chooses.
const aiCore = (pick) => async (ask, outcome, say) => {
  const provider = createOpenAI({ baseURL: `${ask.base}/v1`, apiKey: 'none', fetch: fetchOf(ask), headers: keyed(ask) });
  const leaving = new AbortController();
  let failure = null;
  const tools = Object.fromEntries((ask.tools ?? []).map((name) => [name, tool({ inputSchema: jsonSchema({ type: 'object' }) })]));
  const result = streamText({
    model: pick(provider)(ask.model), prompt: 'hi', maxRetries: ask.maxRetries, abortSignal: leaving.signal,
    ...(ask.tools ? { tools } : {}),
    ...(ask.structured ? { output: Output.object({ schema: Person }) } : {}),
    onError: ({ error }) => { failure = error; },
  });
  for await (const part of result.stream ?? result.fullStream) {
    if (part.type === 'reasoning-delta') outcome.reasoning += part.text;
    if (part.type === 'tool-call') outcome.tools.push([part.toolName, part.input]);
    if (part.type === 'finish') {
      outcome.finish = part.finishReason;
      outcome.usage = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
    }
    if (part.type === 'text-delta') {
      outcome.text += part.text;
      say();
      if (leaves(ask, outcome)) { leaving.abort(); return; }
    }
  }
  if (failure) throw failure;
  if (ask.structured) outcome.parsed = await result.output;
};

// A conversation of two turns, as a page's backend holds it. The first needs a tool, which is run here.
async function aiTurns(ask, outcome) {
  const provider = createOpenAI({ baseURL: `${ask.base}/v1`, apiKey: 'none' });
  const tools = { look: tool({ inputSchema: jsonSchema({ type: 'object' }), execute: () => 'found' }) };
  const messages = [{ role: 'user', content: 'hi' }];
  for (let turn = 0; turn < 2; turn++) {
    let failure = null;
    const result = streamText({
      model: provider.responses(ask.model), messages, tools, stopWhen: stepCountIs(2), maxRetries: 0,
      onError: ({ error }) => { failure = error; },
    });
    await result.consumeStream();
    if (failure) throw failure;
    outcome.text += await result.text;
    messages.push(...await result.responseMessages, { role: 'user', content: 'and?' });
  }
}

// Headrace's own events, for the two clients that speak no provider's language. True at the end.
function take(type, data, outcome, say) {
  const event = JSON.parse(data);
  if (type === 'start' && event.reset) Object.assign(outcome, { text: '', reasoning: '', refusal: '', tools: [] });
  if (type === 'token') { outcome.text += event.token; say(); }
  if (type === 'reasoning') outcome.reasoning += event.text;
  if (type === 'refusal') outcome.refusal += event.text;
  if (type === 'json' && event.path.length === 0) outcome.parsed = event.value;
  if (type === 'tool_call' && event.complete) outcome.tools.push([event.name, JSON.parse(event.arguments)]);
  if (type === 'error') outcome.error = { name: 'error', status: null, message: event.message, code: event.code };
  if (type === 'done') {
    outcome.finish = event.finish_reason;
    if (event.usage) outcome.usage = [event.usage.input_tokens, event.usage.output_tokens];
  }
  return type === 'done';
}
const TYPES = ['start', 'token', 'reasoning', 'refusal', 'json', 'tool_call', 'error', 'done'];

const native = (ask) => ({
  model: ask.model, messages: HELLO,
  ...(ask.tools ? { tools: functions(ask) } : {}),
  ...(ask.structured ? { response_format: FORMAT } : {}),
});

async function eventSource(ask, outcome, say) {
  const post = async () => (await fetch(`${ask.base}/chat`, {
    method: 'POST', body: JSON.stringify(native(ask)),
    headers: { 'Content-Type': 'application/json', ...keyed(ask) },
  })).json();
  const asked = ask.join ?? await post().catch(post);  // the connection may break in the middle of the body, too
  const source = new EventSource(`${ask.base}${asked.stream_url}`, { fetch: fetchOf(ask) });
  await new Promise((resolve, reject) => {
    for (const type of TYPES) {
      source.addEventListener(type, (event) => {
        if (event.data === undefined) return;  // the connection's own error: it comes back by itself
        const ended = take(type, event.data, outcome, say);
        if (ended || leaves(ask, outcome)) resolve();
      });
    }
    source.onerror = (event) => { if (source.readyState === 2) reject(new Error(event.message ?? 'closed for good')); };
  }).finally(() => source.close());
  if (outcome.left) await fetch(`${ask.base}${asked.status_url}/cancel`, { method: 'POST' });
}

// The package asks for a page around it.
globalThis.window ??= { setTimeout, clearTimeout };  // without a document, or OpenAI's takes this for a browser
globalThis.document ??= { hidden: false, addEventListener() {}, removeEventListener() {} };

async function fetchEvents(ask, outcome, say) {
  const leaving = new AbortController();
  await fetchEventSource(ask.join ? `${ask.base}${ask.join.stream_url}` : `${ask.base}/chat/stream`, {
    method: ask.join ? 'GET' : 'POST',
    headers: { 'Content-Type': 'application/json', ...keyed(ask) },
    ...(ask.join ? {} : { body: JSON.stringify({ ...native(ask), grace_s: ask.grace ?? 0 }) }),
    signal: leaving.signal,
    openWhenHidden: true,
    fetch: fetchOf(ask),
    onmessage({ event, data }) {
      if (TYPES.includes(event) && take(event, data, outcome, say)) leaving.abort();
      if (leaves(ask, outcome)) leaving.abort();
    },
    onerror() { return 50; },  // ms until it asks again
  });
}

// The unmodified agent reads a stream that is at hand: `ask.join` has its text, and the messages before it.
async function agUiReplay(ask, outcome) {
  const { body, messages, threadId, runId, endings = 1 } = ask.join;
  const fetch = async () => new Response(body, { headers: { 'Content-Type': 'text/event-stream' } });
  const agent = new HttpAgent({ url: 'http://none', threadId, initialMessages: messages, fetch });
  let ends = 0;
  await agent.runAgent({ runId }, {
    onRunFinishedEvent: ({ event }) => { ends += 1; outcome.finish = event.result.finishReason; },
    onRunErrorEvent: ({ event }) => { ends += 1; outcome.finish = event.code; },
  });
  outcome.messages = agent.messages;
  if (ends !== endings) throw new Error(`the run has ${ends} endings`);
}

// A page with one tool: it runs the calls of the first answer, and asks again.
async function agUiTurns(ask, outcome) {
  const agent = new HttpAgent({ url: `${ask.base}/ag-ui`, initialMessages: [{ id: 'u', role: 'user', content: 'hi' }] });
  const tools = ask.tools.map((name) => ({ name, description: '', parameters: { type: 'object' } }));
  const turn = () => agent.runAgent({ tools, forwardedProps: { model: ask.model } });
  const { newMessages } = await turn();
  for (const { id } of newMessages.flatMap(({ toolCalls = [] }) => toolCalls)) {
    agent.addMessage({ id: `result of ${id}`, role: 'tool', toolCallId: id, content: `did ${id}` });
  }
  const { newMessages: last } = await turn();
  outcome.text = last.findLast(({ role }) => role === 'assistant').content;
  outcome.messages = agent.messages;
}

// A run that another client started is read by its ids; the agent is unmodified.
async function agUi(ask, outcome, say) {
  const url = `${ask.base}/ag-ui`;
  const { threadId, runId, messages = [{ id: 'u', role: 'user', content: 'hi' }] } = ask.join ?? {};
  const plain = fetchOf(ask);
  const attach = (_, { signal }) => plain(`${url}/runs/${runId}?threadId=${threadId}`, { signal });
  const agent = new HttpAgent({
    url, threadId: threadId ?? ask.key ?? undefined, initialMessages: ask.join ? [] : messages,
    fetch: ask.join ? attach : ask.resume ? resumingFetch(plain) : plain,
  });
  const parameters = {
    runId: runId ?? ask.key ?? undefined,
    ...(ask.tools ? { tools: ask.tools.map((name) => ({ name, description: '', parameters: { type: 'object' } })) } : {}),
    forwardedProps: { model: ask.model, ...(ask.structured ? { response_format: FORMAT } : {}) },
  };
  const look = () => {
    const of = (wanted) => agent.messages.filter(({ role }) => role === wanted);
    const joined = (role) => of(role).map(({ content }) => content ?? '').join('');
    if (joined('assistant').length > outcome.text.length) say();
    outcome.text = joined('assistant');
    outcome.reasoning = joined('reasoning');
    outcome.messages = agent.messages;
    if (ask.leaveAt && !outcome.left && outcome.text.includes(ask.leaveAt)) {
      outcome.left = true;
      void globalThis.fetch(`${url}/runs/${ask.key}/cancel?threadId=${agent.threadId}`, { method: 'POST' });
    }
  };
  await agent.runAgent(parameters, {
    onMessagesChanged: look,
    onRunFinishedEvent: ({ event }) => {
      outcome.finish = event.result.finishReason;
      outcome.usage = event.usage ? [event.usage[0].inputTokens, event.usage[0].outputTokens] : null;
    },
    onRunErrorEvent: ({ event }) => {
      if (!outcome.left) outcome.error = { name: 'RUN_ERROR', message: event.message, status: null, code: event.code };
    },
  });
  look();
  const calls = agent.messages.flatMap(({ toolCalls = [] }) => toolCalls);
  outcome.tools = calls.map(({ function: { name, arguments: made } }) => [name, JSON.parse(made)]);
  if (ask.structured) outcome.parsed = Person.parse(JSON.parse(outcome.text));
}

export const CLIENTS = {
  'openai-chat': openaiChat,
  'openai-responses': openaiResponses,
  anthropic,
  'ai-chat': aiChat,
  'ai-openai-chat': aiCore((provider) => provider.chat),
  'ai-openai-responses': aiCore((provider) => provider.responses),
  'ai-turns': aiTurns,
  'ag-ui': agUi,
  'ag-ui-turns': agUiTurns,
  'ag-ui-replay': agUiReplay,
  eventsource: eventSource,
  'fetch-event-source': fetchEvents,
};
