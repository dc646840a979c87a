// The key (or token) that a gateway may ask for. It is kept in sessionStorage: gone with the tab, and out of reach for
// other origins; in no URL, and in no list of what was asked.

const KEPT_AS = "headrace.key";
const by = (id) => document.getElementById(id);

/** What goes with every call of ours. */
export function credentials() {
  const key = sessionStorage.getItem(KEPT_AS);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

let asking = null;

/** Until the user has given one; all who need it wait for the same form. `why`: what the gateway said to the last. */
export function askForKey(why) {
  asking ??= new Promise((given) => {
    const hadOne = sessionStorage.getItem(KEPT_AS) !== null;
    by("key-problem").textContent = hadOne ? `${why}.` : "";
    const submit = (event) => {
      event.preventDefault();
      const key = by("key").value.trim();
      if (!key) return;
      by("key").value = "";
      by("key-form").removeEventListener("submit", submit);
      sessionStorage.setItem(KEPT_AS, key);
      asking = null;
      by("login").close();
      showForget();
      given();
    };
    by("key-form").addEventListener("submit", submit);
    by("login").showModal();
  });
  return asking;
}

/** The button that forgets it, where there is one to forget. */
export function showForget() {
  by("forget-key").hidden = sessionStorage.getItem(KEPT_AS) === null;
}

export function watchKey() {
  by("login").addEventListener("cancel", (event) => event.preventDefault()); // Escape leads nowhere
  by("forget-key").addEventListener("click", () => {
    sessionStorage.removeItem(KEPT_AS);
    location.reload();
  });
  showForget();
}
