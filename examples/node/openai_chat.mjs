// Streams a chat completion. Kill it and start it again: Headrace's own API reads the rest.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { EventSource } from 'eventsource';
import OpenAI from 'openai';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'openai_chat.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
let said = '';
if (!at) {
  const client = new OpenAI({ baseURL: `${HEADRACE_URL}/v1`, apiKey: HEADRACE_API_KEY });
  const messages = [{ role: 'user', content: 'Tell me a story.' }];
  const asked = { model: HEADRACE_MODEL, messages, stream: true, on_disconnect: 'continue' };
  const { data: stream, response } = await client.chat.completions.create(asked).withResponse();
  const id = response.headers.get('x-stream-id');
  save({ id, said: 0 });
  for await (const { choices } of stream) {
    const piece = choices[0]?.delta.content ?? '';
    said += piece;
    process.stdout.write(piece);
    save({ id, said: said.length });
  }
} else {
  const headers = { Authorization: `Bearer ${HEADRACE_API_KEY}` };
  const source = new EventSource(`${HEADRACE_URL}/chat/stream/${at.id}`, {
    fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, ...headers } }),
  });
  source.addEventListener('token', ({ data }) => {
    said += JSON.parse(data).token;
    process.stdout.write(said.slice(at.said));
    at.said = Math.max(at.said, said.length);
  });
  await new Promise((resolve) => source.addEventListener('done', resolve));
  source.close();
}
rmSync(saved);
