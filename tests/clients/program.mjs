// Uses the JavaScript client as one line of stdin says, and prints the outcome as JSON.

import { createInterface } from 'node:readline';
import { Headrace, HeadraceError, verifyWebhook } from '../../clients/javascript/src/index.js';
import { Retries } from '../../clients/javascript/src/retries.js';
import { SseDecoder } from '../../clients/javascript/src/sse.js';

// The errors with which each engine reports that a request failed, and that a body broke off.
const ENGINES = {
  chrome: [new TypeError('Failed to fetch'), new TypeError('network error')],
  safari: [new TypeError('Load failed'), new TypeError('Load failed')],
  firefox: [new TypeError('NetworkError when attempting to fetch resource.'), new TypeError('Error in input stream')],
  node: [new TypeError('fetch failed'), new TypeError('terminated')],
  aborted: [new DOMException('The operation was aborted.', 'AbortError'), new DOMException('', 'AbortError')],
  text: ['a string', undefined],
};

// Node's `fetch`, in another engine's words.
const fetchIn = (engine) => async (url, init) => {
  const [refused, broken] = ENGINES[engine];
  const response = await fetch(url, init).catch(() => { throw refused; });
  if (!response.body) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) controller.close(); else controller.enqueue(value);
      } catch {
        controller.error(broken);
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(response.status === 204 ? null : body, response);
};

async function outcomeOf(stream) {
  let shown = '';
  const types = [];
  const ids = [];
  try {
    for await (const event of stream) {
      if (event.type === 'reset') shown = '';
      if (event.type === 'token') shown += event.token;
      types.push(event.type);
      if (event.eventId) ids.push(event.eventId);
    }
  } catch (error) {
    return { error: errorOf(error), types };
  }
  const { text, id, url, toolCalls, json, done, lastEventId } = stream;
  return { shown, types, ids, text, id, url, toolCalls, json, done, lastEventId };
}

const errorOf = ({ name, code, message, retryable, status, retryAfterMs }) =>
  ({ name, code, message, retryable, status, retryAfterMs });

const caught = async (call) => {
  try {
    return { value: await call() };
  } catch (error) {
    return { error: errorOf(error) };
  }
};

// The next delay in seconds and its number, or the code of the final error.
const nextOf = (retries, { retryable = true, after_s: after }) => {
  try {
    const retryAfterMs = after === undefined ? null : after * 1000;
    const { delayMs, attempt } = retries.next(new HeadraceError('c', 'm', { retryable, retryAfterMs }));
    return [delayMs / 1000, attempt];
  } catch (error) {
    return error.code;
  }
};

const PROGRAMS = {
  // Reads all streams; each breaks in the words of the next engine.
  async read({ url, streams }) {
    const engines = Object.keys(ENGINES);
    return Promise.all(streams.map((stream, at) => {
      const engine = engines[at % engines.length];
      return outcomeOf(new Headrace({ url, fetch: fetchIn(engine) }).attach(stream));
    }));
  },
  async start({ url, key, user, models, options, idempotencyKey }) {
    const client = new Headrace({ url, key, user, ...options });
    const messages = [{ role: 'user', content: 'my secret prompt' }];
    return Promise.all(models.map((model) => outcomeOf(client.start({ model, messages }, { idempotencyKey }))));
  },
  async attach({ url, key, user, stream, options }) {
    return outcomeOf(new Headrace({ url, key, user }).attach(stream, options));
  },
  // The outcome in the form of outcomes.py.
  async observe({ url, key, stream, last_event_id: lastEventId }) {
    const attempts = [];
    const types = [];
    const ids = [];
    const onRetry = ({ attempt }) => attempts.push(attempt);
    const read = new Headrace({ url, key }).attach(stream, { lastEventId, onRetry });
    const { error: thrown } = await caught(async () => {
      for await (const event of read) {
        types.push(event.type);
        if (event.eventId) ids.push(event.eventId);
      }
    });
    const { text, reasoning, refusal, toolCalls: calls, json, error, done } = read;
    const wait = thrown?.retryAfterMs ?? null;
    const failure = { raised: thrown?.code ?? null, wait_s: wait === null ? null : wait / 1000, error: error?.code ?? null };
    const finish_reason = done?.finish_reason ?? null;
    return { types, ids, text, reasoning, refusal, calls, json, attempts, finish_reason, ...failure };
  },
  async stop({ url, key, stream }) {
    await new Headrace({ url, key }).cancel(stream);
    return null;
  },
  async decode({ pieces }) {
    return pieces.map((each) => {
      const decoder = new SseDecoder();
      const frames = each.flatMap((piece) => [...decoder.feed(Buffer.from(piece, 'hex'))]);
      return [frames.map(({ name, data, id }) => [name, data, id]), decoder.retryMs, decoder.heartbeats];
    });
  },
  async delays({ failures, total, first }) {
    const retries = new Retries(total);
    retries.firstDelayMs = first;
    return failures.flatMap(({ reset, ...failure }) => (reset ? retries.reset() ?? [] : [nextOf(retries, failure)]));
  },
  // A machine sleeps for an hour after a failure; later the time runs out.
  async asleep() {
    let now = 1000;
    performance.now = () => now;
    const retries = new Retries(120_000);
    nextOf(retries, {});
    now += 3_600_000;
    const outcomes = [nextOf(retries, {})];
    for (let minute = 0; minute < 2; minute += 1) {
      now += 60_000;
      outcomes.push(nextOf(retries, {}));
    }
    return outcomes.map((outcome) => (typeof outcome === 'string' ? outcome : 'retried'));
  },
  // Leaves after the first token, reads on, and reads once more.
  async leave({ url, stream }) {
    const read = new Headrace({ url }).attach(stream);
    for await (const event of read) if (event.type === 'token') break;
    const left = read.lastEventId;
    const outcome = await outcomeOf(read);
    return { ...outcome, left, again: (await outcomeOf(read)).types };
  },
  async cancel({ url, model, other }) {
    const started = await new Headrace({ url }).start({ model, messages: [{ role: 'user', content: 'hi' }] }).started;
    const link = new Headrace({ url: other }).attach(started.url);
    for await (const event of link) if (event.type === 'token') await link.cancel();
    return { text: link.text, done: link.done, status: await new Headrace({ url }).wait(started.id) };
  },
  async chat({ url, model, chat }) {
    const client = new Headrace({ url });
    for (const content of ['first', 'second']) {
      await client.start({ model, chat_id: chat, messages: [{ role: 'user', content }] }).wait();
    }
    const first = await client.chat(chat, { limit: 1 });
    const second = await client.chat(chat, { limit: 1, page: first.next_page });
    return { listed: (await client.chats({ limit: 1 })).chats[0], turns: [...first.turns, ...second.turns] };
  },
  async abort({ url, stream }) {
    const stop = new AbortController();
    const read = new Headrace({ url }).attach(stream);
    return caught(async () => {
      for await (const event of read.events({ signal: stop.signal })) if (event.type === 'token') stop.abort();
    });
  },
  async refused({ url, cases }) {
    return Promise.all(cases.map(({ key, user, stream, base = url }) =>
      caught(() => new Headrace({ url: base, key, user }).attach(stream ?? 's').id)));
  },
  async webhook({ cases }) {
    return Promise.all(cases.map(({ body, headers, secret, plain }) =>
      caught(() => verifyWebhook(body, plain ? headers : new Headers(headers), secret))));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { program, ...ask } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await PROGRAMS[program](ask))}\n`);
}
