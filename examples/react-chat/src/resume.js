// Resumes an answer whose connection broke. Every browser reports that as a TypeError, but in words of its own. The
// server's errors are no TypeErrors. The SDK resumes only when its page becomes visible again, and not in Firefox.
export function resumption(fetch = globalThis.fetch) {
  let timer;
  let cuts = 0; // in a row, less than 30 s apart
  let lastCut = 0;
  const pauseMs = (failures) => Math.min(250 * 2 ** failures, 10_000) * (0.5 + Math.random() / 2);
  const cancel = () => clearTimeout(timer);
  return {
    cancel, // when the page leaves the chat

    // For the chat's `onError`.
    onError(error, resumeStream) {
      if (!(error instanceof TypeError)) return;
      cuts = Date.now() - lastCut < 30_000 ? cuts + 1 : 0;
      lastCut = Date.now();
      cancel();
      if (cuts < 10) timer = setTimeout(() => resumeStream(), pauseMs(cuts));
    },

    // For the transport. Repeats what a gateway that restarts did not answer. A repeated GET is safe; the key makes a
    // repeated POST safe: it is answered and paid once.
    async fetch(url, init) {
      const isResume = init.method === 'GET';
      const headers = new Headers(init.headers);
      if (!isResume) {
        cancel(); // a new message makes a resume pointless
        const key = crypto.getRandomValues(new Uint32Array(4)).join('-');
        if (!headers.has('Idempotency-Key')) headers.set('Idempotency-Key', key);
      }
      for (let failures = 0; ; failures += 1) {
        try {
          const response = await fetch(url, { ...init, headers });
          if (!isResume || response.status < 500) return response;
        } catch (error) {
          if (init.signal?.aborted) throw error;
          if (!isResume && failures === 5) throw new Error('The server cannot be reached.', { cause: error });
        }
        await new Promise((resolve) => setTimeout(resolve, pauseMs(failures)));
      }
    },
  };
}
