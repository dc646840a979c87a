// Vercel's AI SDK, with its providers for OpenAI (both APIs), Anthropic and OpenAI-compatible servers.

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { SCHEMA, TASK, append, cancelled, finish, read, run } from './task.mjs';

const baseURL = `${TASK.url}/v1`;
const options = { baseURL, apiKey: 'none' };

function model() {
  if (TASK.api === 'messages') return createAnthropic(options)(TASK.model);
  if (TASK.api === 'responses') return createOpenAI(options).responses(TASK.model);
  return createOpenAICompatible({ ...options, name: 'headrace', includeUsage: true, supportsStructuredOutputs: true })(
    TASK.model,
  );
}

const text = (properties) => jsonSchema({ type: 'object', properties, required: Object.keys(properties) });

const tools = {
  append: tool({ description: 'Append a line.', inputSchema: text({ line: { type: 'string' } }), execute: append }),
  look: tool({
    description: 'Read an image.',
    inputSchema: text({ path: { type: 'string' } }),
    execute: ({ path }) => read(path),
    toModelOutput: (given) => ({
      type: 'content',
      value: [{ type: 'media', mediaType: 'image/png', data: given?.output ?? given }],
    }),
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
