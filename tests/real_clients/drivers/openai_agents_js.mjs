// OpenAI's Agents SDK for JavaScript, over Responses (also its WebSocket) and over Chat Completions.

import {
  Agent,
  run as runAgent,
  setDefaultOpenAIClient,
  setOpenAIAPI,
  setOpenAIResponsesTransport,
  setTracingDisabled,
  tool,
} from '@openai/agents';
import OpenAI from 'openai';
import { z } from 'zod';
import { TASK, append, cancelled, finish, read, run } from './task.mjs';

setTracingDisabled(true);
setDefaultOpenAIClient(new OpenAI({ baseURL: `${TASK.url}/v1`, apiKey: 'none' }));
setOpenAIAPI(TASK.api === 'responses' ? 'responses' : 'chat_completions');
setOpenAIResponsesTransport(TASK.client === 'WebSocket' ? 'websocket' : 'http');

const agent = (options) => new Agent({ name: 'agent', model: TASK.model, ...options });

const tools = [
  tool({ name: 'append', description: 'Append a line.', parameters: z.object({ line: z.string() }), execute: append }),
  tool({
    name: 'look',
    description: 'Read an image.',
    parameters: z.object({ path: z.string() }),
    execute: ({ path }) => ({ type: 'image', image: { data: read(path), mediaType: 'image/png' } }),
  }),
];

async function text() {
  finish({ text: (await runAgent(agent(), TASK.prompt)).finalOutput });
}

async function image() {
  finish({ text: (await runAgent(agent({ tools }), TASK.prompt)).finalOutput });
}

async function steps() {
  const answer = await runAgent(agent({ tools }), TASK.prompt, { stream: true });
  await answer.completed;
  finish({ text: answer.finalOutput });
}

async function structured() {
  const outputType = z.object({ n: z.number().int() });
  finish({ parsed: (await runAgent(agent({ outputType }), TASK.prompt)).finalOutput });
}

async function usage() {
  const answer = await runAgent(agent(), TASK.prompt, { stream: true });
  await answer.completed;
  finish({ cached: answer.rawResponses[0].usage.inputTokensDetails[0].cached_tokens });
}

async function cancel() {
  const abort = new AbortController();
  const answer = await runAgent(agent(), TASK.prompt, { stream: true, signal: abort.signal });
  for await (const event of answer) if (event.data?.type === 'output_text_delta') break;
  abort.abort();
  await cancelled();
}

await run({ text, tools: steps, image, structured, cancel, error: text, usage });
