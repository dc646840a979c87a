// Vercel's AI SDK, with its providers for OpenAI (both APIs), Anthropic and OpenAI-compatible servers. From version 7
// on, tools return images as files, and the provider for compatible servers can send them.

import { readFileSync } from 'node:fs';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { SCHEMA, TASK, append, cancelled, finish, read, run } from './task.mjs';

const baseURL = `${TASK.url}/v1`;
const options = { baseURL, apiKey: 'none' };

function model() {
  if (TASK.client === '@ai-sdk/anthropic') return createAnthropic(options)(TASK.model);
  if (TASK.client === '@ai-sdk/openai') return createOpenAI(options)[TASK.api](TASK.model);
  return createOpenAICompatible({
    ...options,
    name: 'headrace',
    includeUsage: true,
    supportsStructuredOutputs: true,
    supportsMultiPartToolContent: true,
  })(TASK.model);
}

const { version } = JSON.parse(readFileSync(new URL('node_modules/ai/package.json', import.meta.url)));

function image(data) {
  if (version.startsWith('6.')) return { type: 'media', mediaType: 'image/png', data };
  return { type: 'file', mediaType: 'image/png', data: { type: 'data', data } };
}

const text = (properties) => jsonSchema({ type: 'object', properties, required: Object.keys(properties) });

const tools = {
  append: tool({ description: 'Append a line.', inputSchema: text({ line: { type: 'string' } }), execute: append }),
  look: tool({
    description: 'Read an image.',
    inputSchema: text({ path: { type: 'string' } }),
    execute: ({ path }) => read(path),
    toModelOutput: ({ output }) => ({ type: 'content', value: [image(output)] }),
  }),
};

const ask = { prompt: TASK.prompt, maxRetries: 0 };

async function agent() {
  const answer = streamText({ ...ask, model: model(), tools, stopWhen: stepCountIs(9), onError: () => {} });
  await answer.consumeStream();
  finish({ text: await answer.text });
}

async function plain() {
  finish({ text: (await generateText({ ...ask, model: model() })).text });
}

async function structured() {
  const output = Output.object({ schema: jsonSchema(SCHEMA) });
  const answer = await generateText({ ...ask, model: model(), output, experimental_output: output });
  finish({ parsed: answer.output ?? answer.experimental_output });
}

async function usage() {
  const answer = streamText({ ...ask, model: model() });
  await answer.consumeStream();
  const used = await answer.usage;
  finish({ cached: used.inputTokenDetails?.cacheReadTokens ?? used.cachedInputTokens ?? null });
}

async function cancel() {
  const abort = new AbortController();
  const answer = streamText({ ...ask, model: model(), abortSignal: abort.signal, onError: () => {} });
  for await (const word of answer.textStream) if (word) break;
  abort.abort();
  await cancelled();
}

await run({ text: plain, tools: agent, image: agent, structured, cancel, error: plain, usage });
