// LangChain and LangGraph for JavaScript, with OpenAI's and Anthropic's chat models: a streamed graph with the tools,
// and LangChain's own agent for the image.

import { ChatAnthropic } from '@langchain/anthropic';
import { MessagesAnnotation, START, StateGraph } from '@langchain/langgraph';
import { ToolNode, toolsCondition } from '@langchain/langgraph/prebuilt';
import { ChatOpenAI } from '@langchain/openai';
import { createAgent, tool } from 'langchain';
import { z } from 'zod';
import { SCHEMA, TASK, append, cancelled, finish, read, run } from './task.mjs';

function model() {
  const options = { model: TASK.model, apiKey: 'none', maxRetries: 0 };
  if (TASK.api === 'messages') return new ChatAnthropic({ ...options, anthropicApiUrl: TASK.url });
  const configuration = { baseURL: `${TASK.url}/v1` };
  return new ChatOpenAI({ ...options, configuration, useResponsesApi: TASK.api === 'responses' });
}

const tools = [
  tool(append, { name: 'append', description: 'Append a line.', schema: z.object({ line: z.string() }) }),
  tool(({ path }) => [{ type: 'image', source_type: 'base64', mime_type: 'image/png', data: read(path) }], {
    name: 'look',
    description: 'Read an image.',
    schema: z.object({ path: z.string() }),
  }),
];

const messages = [{ role: 'user', content: TASK.prompt }];

async function graph() {
  const agent = async (state) => ({ messages: [await model().bindTools(tools).invoke(state.messages)] });
  const compiled = new StateGraph(MessagesAnnotation)
    .addNode('agent', agent)
    .addNode('tools', new ToolNode(tools))
    .addEdge(START, 'agent')
    .addConditionalEdges('agent', toolsCondition)
    .addEdge('tools', 'agent')
    .compile();
  let state;
  const options = { streamMode: ['messages', 'values'] };
  for await (const [mode, data] of await compiled.stream({ messages }, options)) if (mode === 'values') state = data;
  finish({ text: state.messages.at(-1).text });
}

async function agent() {
  finish({ text: (await createAgent({ model: model(), tools }).invoke({ messages })).messages.at(-1).text });
}

async function text() {
  const words = [];
  for await (const chunk of await model().stream(TASK.prompt)) words.push(chunk.text);
  finish({ text: words.join('') });
}

async function structured() {
  finish({ parsed: await model().withStructuredOutput(SCHEMA, { method: 'jsonSchema' }).invoke(TASK.prompt) });
}

async function usage() {
  finish({ cached: (await model().invoke(TASK.prompt)).usage_metadata.input_token_details.cache_read });
}

async function cancel() {
  const abort = new AbortController();
  for await (const chunk of await model().stream(TASK.prompt, { signal: abort.signal })) if (chunk.text) break;
  abort.abort();
  await cancelled();
}

await run({ text, tools: graph, image: agent, structured, cancel, error: text, usage });
