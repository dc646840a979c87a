// A `fetch` for AG-UI's HttpAgent: a run whose connection breaks goes on where it was, and its agent does not notice.
// A gateway that restarts is waited for. A run has its `runId`, so that a repeated POST finds it and starts no other.
export function resumingFetch(fetch = globalThis.fetch) {
  const pause = (failures) =>
    new Promise((resolve) => setTimeout(resolve, Math.min(250 * 2 ** failures, 10_000) * (0.5 + Math.random() / 2)));

  return async function (url, init) {
    let at = null; // `id` of the last event
    let failures = 0; // in a row
    let isOver = false;

    async function connect() {
      for (;;) {
        const headers = new Headers(init.headers);
        if (at !== null) headers.set('Last-Event-ID', at);
        try {
          const response = await fetch(url, { ...init, headers });
          if (response.status < 500 || failures === 10) return response;
        } catch (error) {
          if (init.signal?.aborted || failures === 10) throw error;
        }
        await pause(failures++);
      }
    }

    async function* wholeEvents(body) {
      let text = ''; // of an event that is not complete
      const decoder = new TextDecoder();
      for await (const bytes of body) {
        text += decoder.decode(bytes, { stream: true });
        const end = text.lastIndexOf('\n\n') + 2;
        if (end === 1) continue;
        const whole = text.slice(0, end);
        text = text.slice(end);
        at = whole.match(/^id: (.*)$/gm)?.at(-1).slice('id: '.length) ?? at;
        isOver = /^data: {"type":"RUN_(FINISHED|ERROR)"/m.test(whole);
        yield whole;
      }
    }

    async function* run(response) {
      for (;;) {
        try {
          for await (const events of wholeEvents(response.body)) {
            failures = 0;
            yield new TextEncoder().encode(events);
          }
        } catch (error) {
          if (init.signal?.aborted) throw error;
        }
        if (isOver) return;
        await pause(failures++);
        response = await connect();
        if (!response.ok) throw new Error(`The run cannot be resumed: HTTP ${response.status}`);
      }
    }

    const response = await connect();
    if (!response.ok) return response;
    return new Response(ReadableStream.from(run(response)), { status: 200, headers: response.headers });
  };
}
