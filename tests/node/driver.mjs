// Clients in JavaScript, for tests in Python: a line of JSON in is a call, lines out are what its user sees.
// In: {"id", "client", "ask"}. Out: {"id", "said": how many pieces so far}, at the end {"id", "outcome"}.

import { createInterface } from 'node:readline';
import { CLIENTS } from './clients.mjs';

const tell = (line) => process.stdout.write(JSON.stringify(line) + '\n');

async function call({ id, client, ask }) {
  const outcome = {
    text: '', reasoning: '', refusal: '', tools: [], parsed: null, usage: null, finish: null, error: null, left: false,
  };
  let said = 0;
  const say = () => tell({ id, said: ++said });
  try {
    await CLIENTS[client](ask, outcome, say);
  } catch (error) {
    outcome.error = described(error);
  }
  tell({ id, outcome });
}

function described(error) {
  const inner = error.error?.error ?? error.error ?? {};
  return {
    name: error.name ?? '',
    message: String(error.message ?? error),
    status: error.status ?? error.statusCode ?? error.code ?? null,
    code: inner.code ?? inner.type ?? (typeof error.code === 'string' ? error.code : null),
  };
}

// `@ag-ui/client` reports a cut to its caller, and once more by a promise that nobody has.
process.on('unhandledRejection', (error) => { if (error.message !== 'terminated') throw error; });

for await (const line of createInterface({ input: process.stdin })) {
  void call(JSON.parse(line));
}
process.exit(0);
