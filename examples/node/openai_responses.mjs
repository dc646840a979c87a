// Streams an answer in the background. Kill it and start it again: it continues after the last saved event.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import OpenAI from 'openai';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'openai_responses.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const client = new OpenAI({ baseURL: `${HEADRACE_URL}/v1`, apiKey: HEADRACE_API_KEY });
let at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
const stream = at
  ? await client.responses.retrieve(at.id, { stream: true, starting_after: at.number })
  : await client.responses.create({ model: HEADRACE_MODEL, input: 'Tell me a story.', stream: true, background: true });
for await (const event of stream) {
  if (event.type === 'response.created') at = { id: event.response.id };
  if (event.type === 'response.output_text.delta') process.stdout.write(event.delta);
  save({ ...at, number: event.sequence_number });
}
rmSync(saved);
