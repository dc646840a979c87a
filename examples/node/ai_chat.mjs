// Streams an answer as the AI SDK's `useChat` does. Kill it and start it again: it needs only the chat's id.
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { DefaultChatTransport, readUIMessageStream } from 'ai';

const { HEADRACE_URL = 'http://localhost:8000', HEADRACE_API_KEY = 'none', HEADRACE_MODEL = 'demo/demo' } = process.env;
const saved = 'ai_chat.json';
const save = (state) => {
  writeFileSync(`${saved}.new`, JSON.stringify(state));
  renameSync(`${saved}.new`, saved); // atomic: a kill leaves a complete file
};
const transport = new DefaultChatTransport({
  api: `${HEADRACE_URL}/api/chat`,
  headers: { Authorization: `Bearer ${HEADRACE_API_KEY}` },
  body: { model: HEADRACE_MODEL },
});
const at = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : null;
const chatId = at?.chatId ?? randomUUID();
if (!at) save({ chatId, shown: 0 });
const messages = [{ id: '1', role: 'user', parts: [{ type: 'text', text: 'Tell me a story.' }] }];
const stream = at
  ? await transport.reconnectToStream({ chatId }) // replays the whole answer
  : await transport.sendMessages({ chatId, messages, trigger: 'submit-message' });
let shown = at?.shown ?? 0;
for await (const { parts } of readUIMessageStream({ stream })) {
  const text = parts.filter(({ type }) => type === 'text').map((part) => part.text).join('');
  process.stdout.write(text.slice(shown));
  shown = Math.max(shown, text.length);
  save({ chatId, shown });
}
rmSync(saved);
