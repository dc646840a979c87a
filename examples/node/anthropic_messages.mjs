// Streams a message. Kill it and start it again: Headrace's own API reads the rest.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import Anthropic from '@anthropic-ai/sdk';
import { EventSource } from 'eventsource';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'anthropic_messages.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
let said = '';
if (!at) {
  const client = new Anthropic({ baseURL: HEADRACE_URL, apiKey: HEADRACE_API_KEY });
  const messages = [{ role: 'user', content: 'Tell me a story.' }];
  const asked = { model: HEADRACE_MODEL, max_tokens: 1000, messages, stream: true, on_disconnect: 'continue' };
  const { data: stream, response } = await client.messages.create(asked).withResponse();
  const id = response.headers.get('x-stream-id');
  save({ id, said: 0 });
  for await (const { delta } of stream) {
    if (delta?.type !== 'text_delta') continue;
    said += delta.text;
    process.stdout.write(delta.text);
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
