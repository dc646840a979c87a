// Streams an answer. Kill it and start it again: it continues after the last event that it saved.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { Headrace } from '../../clients/javascript/src/index.js'; // in a project: '@headrace/client'

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY, HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'headrace_client.json';
const save = (stream) => {
  writeFileSync(`${saved}.new`, JSON.stringify({ url: stream.url, last: stream.lastEventId }));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const client = new Headrace({ url: HEADRACE_URL, key: HEADRACE_API_KEY });
const at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
const stream = at
  ? client.attach(at.url, { lastEventId: at.last })
  : client.start({ model: HEADRACE_MODEL, messages: [{ role: 'user', content: 'Tell me a story.' }] });
await stream.started;
save(stream);
for await (const event of stream) {
  if (event.type === 'token') process.stdout.write(event.token);
  if (event.type === 'reset') process.stdout.write('\n[again, from the start]\n'); // a worker was lost
  save(stream);
}
stream.throwForError();
rmSync(saved, { force: true });
