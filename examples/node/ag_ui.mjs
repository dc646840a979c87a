// Streams a run of AG-UI with HttpAgent. Kill it and start it again: it needs only the run's ids.
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { HttpAgent } from '@ag-ui/client';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'ag_ui.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const ids = { threadId: randomUUID(), runId: randomUUID(), shown: 0 };
const { threadId, runId, shown } = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : ids;
if (!existsSync(saved)) save(ids);
const agent = new HttpAgent({
  url: `${HEADRACE_URL}/ag-ui`,
  headers: { Authorization: `Bearer ${HEADRACE_API_KEY}` },
  threadId,
  initialMessages: [{ id: '1', role: 'user', content: 'Tell me a story.' }],
});
let printed = 0;
const print = ({ messages }) => {
  const text = messages.findLast(({ role }) => role === 'assistant')?.content ?? '';
  if (text.length <= Math.max(printed, shown)) return;
  process.stdout.write(text.slice(Math.max(printed, shown)));
  printed = text.length;
  save({ threadId, runId, shown: printed });
};
// The same ids find the same run, which is then replayed from its start.
await agent.runAgent({ runId, forwardedProps: { model: HEADRACE_MODEL } }, { onMessagesChanged: print });
rmSync(saved);
