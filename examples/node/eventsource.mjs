// Streams an answer. Kill it and start it again: it goes on behind the last event that it had. In between, EventSource
// comes back by itself, whatever the network does.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { EventSource } from 'eventsource';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'eventsource.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // in one step, whenever this is killed
};
let at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
if (!at) {
  const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${HEADRACE_KEY}` };
  const body = JSON.stringify({ model: HEADRACE_MODEL, messages: [{ role: 'user', content: 'Tell me a story.' }] });
  const answer = await fetch(`${HEADRACE_URL}/chat`, { method: 'POST', headers, body });
  at = { url: (await answer.json()).stream_url, last: '' };
  save(at); // the ticket in it is all that an EventSource can show
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
source.close(); // else it would come back, and be told 204
rmSync(saved, { force: true });
