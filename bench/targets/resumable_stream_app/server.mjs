// Usage with explicit resumption from resumable-stream's README, on a plain Node server instead of Next.js.
//
// POST /chat {"model", "prompt"} streams a new answer; GET /chat/<id>?resumeAt=<characters> resumes one that is running.
// Environment: PORT, REDIS_URL (read by the library), OPENAI_BASE_URL and OPENAI_API_KEY (read by the SDK).

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import OpenAI from "openai";
import { createResumableStreamContext } from "resumable-stream/redis";

const openai = new OpenAI();
// `after` of Next.js keeps a serverless function alive; this process keeps running anyway.
const context = createResumableStreamContext({ waitUntil: () => {} });

async function* events({ model, prompt }) {
  try {
    const chunks = await openai.chat.completions.create({
      model,
      messages: [{ role: "user", content: prompt }],
      stream: true,
    });
    for await (const chunk of chunks) {
      const token = chunk.choices[0]?.delta?.content;
      if (token) yield `data: ${JSON.stringify({ token })}\n\n`;
    }
    yield "data: [DONE]\n\n";
  } catch (error) {
    // Without this, a rejected read would end the process.
    console.error(error);
    yield "event: error\ndata: {}\n\n";
  }
}

async function send(response, streamId, stream) {
  if (!stream) {
    response.writeHead(422).end("Stream is already done");
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Stream-Id": streamId });
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  try {
    for await (const event of stream) {
      if (!response.write(event)) await once(response, "drain", { signal: gone.signal });
      if (response.destroyed) return;
    }
  } catch (error) {
    if (!gone.signal.aborted) throw error;
  }
  response.end();
}

async function serve(request, response) {
  const url = new URL(request.url, "http://localhost");
  if (request.method === "POST" && url.pathname === "/chat") {
    const question = await json(request);
    const streamId = randomUUID();
    const stream = await context.createNewResumableStream(streamId, () => ReadableStream.from(events(question)));
    await send(response, streamId, stream);
  } else if (request.method === "GET" && url.pathname.startsWith("/chat/")) {
    const streamId = url.pathname.slice("/chat/".length);
    const resumeAt = url.searchParams.get("resumeAt");
    const stream = await context.resumeExistingStream(streamId, resumeAt ? parseInt(resumeAt, 10) : undefined);
    await send(response, streamId, stream);
  } else {
    response.writeHead(url.pathname === "/healthz" ? 200 : 404).end();
  }
}

const server = createServer((request, response) => {
  serve(request, response).catch((error) => {
    console.error(error);
    if (response.headersSent) response.destroy();
    else response.writeHead(500).end();
  });
});
server.listen({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 });
