// Streams an answer with one POST. Kill it and start it again: the same Idempotency-Key attaches to the same answer.
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { fetchEventSource } from '@microsoft/fetch-event-source';

globalThis.window ??= globalThis; // the package expects a browser
globalThis.document ??= { addEventListener() {}, removeEventListener() {} };
const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'fetch_event_source.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : { key: randomUUID(), last: '' };
save(at);
const ended = new AbortController();
await fetchEventSource(`${HEADRACE_URL}/chat/stream`, {
  method: 'POST',
  headers: {
    'Content-Type': 'application/json',
    Authorization: `Bearer ${HEADRACE_API_KEY}`,
    'Idempotency-Key': at.key, // every repeated POST attaches to the same answer
    'Last-Event-ID': at.last,
  },
  body: JSON.stringify({ model: HEADRACE_MODEL, messages: [{ role: 'user', content: 'Tell me a story.' }] }),
  signal: ended.signal,
  openWhenHidden: true,
  onmessage({ event, data, id }) {
    if (event === 'token') process.stdout.write(JSON.parse(data).token);
    if (event === 'start' && JSON.parse(data).reset) process.stdout.write('\n[again, from the start]\n'); // a worker was lost
    if (id) save({ ...at, last: id });
    if (event === 'done') ended.abort(); // otherwise it sends the request again
  },
});
rmSync(saved, { force: true });
