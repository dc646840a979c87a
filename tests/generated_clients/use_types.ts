// Uses the types that openapi-typescript has written into schema.d.ts, by openapi-fetch; its argument is the URL.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });
const body: components["schemas"]["ChatRequest"] = {
  model: "demo/demo",
  messages: [{ role: "user", content: "Count to 3" }],
};

function assert(condition: unknown, problem: string): asserts condition {
  if (!condition) throw new Error(problem);
}

const made = await client.POST("/chat", { body });
assert(made.data, "not accepted");
const stream_id: string = made.data.stream_id;
let status = "queued";
let text = "";
while (status === "queued" || status === "running") {
  const answer = await client.GET("/chat/{stream_id}", { params: { path: { stream_id } } });
  assert(answer.data, "no answer");
  ({ status, text } = answer.data);
}
assert(status === "completed" && text, `ended as ${status}`);

const refused = await client.POST("/chat", { body: { ...body, temperature: 9 } });
assert(refused.error?.error.code === "invalid_request", "not refused");

const read = await client.GET("/chat/stream/{stream_id}", { params: { path: { stream_id } }, parseAs: "text" });
assert(read.data?.includes("event: done"), "no end of the stream");
