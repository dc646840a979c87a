// When a page goes away without being unloaded, and when it comes back. A connection held meanwhile keeps browsers from
// caching the page for Back, and one that a frozen phone held may be dead without telling.

const LONG_HIDDEN_MS = 10_000;

export function watchPage({ away, back }) {
  let hiddenAt = 0;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = Date.now();
    else if (Date.now() - hiddenAt > LONG_HIDDEN_MS) back();
  });
  window.addEventListener("pagehide", away);
  window.addEventListener("pageshow", (event) => event.persisted && back());
  document.addEventListener("freeze", away);
  document.addEventListener("resume", back);
  window.addEventListener("online", back);
}
