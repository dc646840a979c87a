// Reports when a page is put away without being unloaded, and when it returns. An open connection would keep browsers
// from caching the page for Back, and a connection of a frozen phone may be dead without notice.

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
