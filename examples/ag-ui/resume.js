// A `fetch` for AG-UI's HttpAgent: a run whose connection breaks goes on where it was, and its agent does not notice.
// A gateway that restarts is waited for. A run has its `runId`, so that a repeated POST finds it and starts no other.
export function resumingFetch(fetch = globalThis.fetch) {
  const mostFailures = 10; // in a row
  const pause = (failures) =>
    new Promise((resolve) => setTimeout(resolve, Math.min(250 * 2 ** failures, 10_000) * (0.5 + Math.random() / 2)));

  return async function (url, init) {
    let at = '0'; // `id` of the last event; 0 also tells that this client resumes
    let failures = 0;
    let isOver = false;

    async function connect() {
      for (;;) {
        const headers = new Headers(init.headers);
        headers.set('Last-Event-ID', at);
        try {
          const response = await fetch(url, { ...init, headers });
          if (response.status < 500 || failures >= mostFailures) return response;
        } catch (error) {
          if (init.signal?.aborted || failures >= mostFailures) throw error;
        }
        await pause(failures++);
      }
    }

    async function* wholeEvents(body) {
      const [reader, decoder] = [body.getReader(), new TextDecoder()];
      let text = ''; // of an event that is not complete
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        text += decoder.decode(value, { stream: true });
        const end = text.lastIndexOf('\n\n') + 2;
        if (end === 1) continue;
        const whole = text.slice(0, end);
        text = text.slice(end);
        // No flag m: with it, a line could begin within a text, after U+2028.
        at = whole.match(/(?<=^|\n)id: .*/g)?.at(-1).slice('id: '.length) ?? at;
        isOver = /(?<=^|\n)data: {"type":"RUN_(FINISHED|ERROR)"/.test(whole);
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
          if (init.signal?.aborted || failures >= mostFailures) throw error;
        }
        if (isOver) return;
        if (failures >= mostFailures) throw new Error('The run cannot be resumed: its responses are empty');
        await pause(failures++);
        response = await connect();
        if (!response.ok) throw new Error(`The run cannot be resumed: HTTP ${response.status}`);
      }
    }

    const response = await connect();
    if (!response.ok) return response;
    const events = run(response);
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await events.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: () => void events.return(),
    });
    return new Response(body, { status: 200, headers: response.headers });
  };
}
