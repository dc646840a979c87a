// The AI SDK's recipe for resumable streams ("Chatbot Resume Streams") on a plain Node server: the packages `ai` and
// `resumable-stream`, Redis, and a store of chats in memory.
//
// POST /api/chat {"id", "messages", "model"} streams an answer; GET /api/chat/<id>/stream resumes it, or has status 204;
// POST /api/chat/<id>/stop ends it. Environment: PORT, PROVIDER_URL (Chat Completions), REDIS_URL (read by the library).
//
// The recipe responds before the stream can be resumed, so that an attach right after the response has status 204. This
// server waits until it can, unless AS_DOCUMENTED=1.

import { createServer } from "node:http";
import { Readable } from "node:stream";
import { json } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import { createOpenAI } from "@ai-sdk/openai";
import {
  convertToModelMessages,
  createUIMessageStreamResponse,
  generateId,
  streamText,
  toUIMessageStream,
  UI_MESSAGE_STREAM_HEADERS,
} from "ai";
import { createResumableStreamContext } from "resumable-stream";

const provider = createOpenAI({ baseURL: process.env.PROVIDER_URL, apiKey: "none" });
// resumable-stream 2.2.13 does not catch an error of the stream that it wraps: one broken answer would end all others.
process.on("unhandledRejection", (error) => console.error("not caught by any library:", error.message));
// `after` of Next.js keeps a serverless function alive; this process keeps running anyway.
const context = createResumableStreamContext({ waitUntil: () => {} });
const chats = new Map();

async function post({ id, messages, model }) {
  const chat = { activeStreamId: null, work: new AbortController() };
  const resumable = Promise.withResolvers();
  chats.set(id, chat);
  const result = streamText({
    model: provider.chat(model),
    maxRetries: 0,
    messages: await convertToModelMessages(messages),
    abortSignal: chat.work.signal,
    onError: () => {}, // readers are told by an `error` chunk
  });
  const response = createUIMessageStreamResponse({
    stream: toUIMessageStream({
      stream: result.stream,
      originalMessages: messages,
      generateMessageId: generateId,
      onEnd: () => (chat.activeStreamId = null),
    }),
    async consumeSseStream({ stream }) {
      const streamId = generateId();
      await context.createNewResumableStream(streamId, () => stream);
      chat.activeStreamId = streamId;
      resumable.resolve();
    },
  });
  if (!process.env.AS_DOCUMENTED) await resumable.promise;
  return response;
}

async function resume(id) {
  const streamId = chats.get(id)?.activeStreamId;
  const stream = streamId && (await context.resumeExistingStream(streamId));
  return stream
    ? new Response(stream.pipeThrough(new TextEncoderStream()), { headers: UI_MESSAGE_STREAM_HEADERS })
    : new Response(null, { status: 204 });
}

function stop(id) {
  chats.get(id)?.work.abort();
  return Response.json({ success: true });
}

async function route(request) {
  const { pathname } = new URL(request.url, "http://localhost");
  const [, id, act] = /^\/api\/chat\/([^/]+)\/(stream|stop)$/.exec(pathname) ?? [];
  if (request.method === "GET" && pathname === "/healthz") return new Response("ok");
  if (request.method === "POST" && pathname === "/api/chat") return post(await json(request));
  if (request.method === "GET" && act === "stream") return resume(id);
  if (request.method === "POST" && act === "stop") return stop(id);
  return new Response(null, { status: 404 });
}

async function serve(request, response) {
  const answer = await route(request);
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  if (answer.body === null) return response.end();
  await pipeline(Readable.fromWeb(answer.body), response);
}

createServer((request, response) => {
  serve(request, response).catch((error) => {
    if (error.code !== "ERR_STREAM_PREMATURE_CLOSE") console.error(error);
    if (!response.headersSent) response.writeHead(500).end();
    else response.destroy();
  });
}).listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
