// Answers that are complete.

import { Answer } from "./answer.js";
import { parse } from "./exact.js";

/** Shows the content of an answer as `GET /chat/{stream_id}` returns it. */
export function fill(answer, status) {
  const { text, json, reasoning, refusal, tool_calls: calls } = status;
  if (reasoning) answer.reasoning.append(reasoning);
  if (refusal) answer.refusal.append(refusal);
  if (text) answer.append(text);
  const value = json ?? jsonIn(text);
  if (value !== null) answer.setValue({ path: [], value });
  for (const [index, { function: called }] of (calls ?? []).entries()) {
    answer.calls.take({ index, name: called.name, arguments: called.arguments, complete: true });
  }
  answer.setSource(status);
  answer.finish(status.finish_reason ? status : null);
}

/** An answer that a request contained. */
export function pastAnswer(text) {
  const answer = new Answer();
  fill(answer, { text });
  return answer.element;
}

/** The value of a text that is JSON, which is shown as JSON even if the request did not require it. */
function jsonIn(text) {
  try {
    return /^\s*[{[]/.test(text) ? parse(text) : null;
  } catch {
    return null;
  }
}
