// Streams an answer. Kill it and start it again: it continues after the last event that it saved. While it runs,
// EventSource reconnects by itself.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { EventSource } from 'eventsource';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'eventsource.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
let at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
if (!at) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${HEADRACE_API_KEY}` };
  const body = JSON.stringify({ model: HEADRACE_MODEL, messages: [{ role: 'user', content: 'Tell me a story.' }] });
  const answer = await fetch(`${HEADRACE_URL}/chat`, { method: 'POST', headers, body });
  const { stream_url: url, error } = await answer.json();
  if (!answer.ok) throw new Error(error.message);
  at = { url, last: '' };
  save(at); // EventSource sends no headers: the ticket in this URL is its only credential
}
const source = new EventSource(`${HEADRACE_URL}${at.url}&last_event_id=${at.last}`);
source.addEventListener('token', ({ data, lastEventId }) => {
  process.stdout.write(JSON.parse(data).token);
  save({ ...at, last: lastEventId });
});
source.addEventListener('start', ({ data }) => {
  if (JSON.parse(data).reset) process.stdout.write('\n[again, from the start]\n'); // a worker was lost
});
await new Promise((resolve) => source.addEventListener('done', resolve));
source.close(); // otherwise it reconnects, and gets 204
rmSync(saved, { force: true });
