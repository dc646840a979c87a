// API key (or token), if the gateway requires one. It is stored in sessionStorage: it disappears with the tab and is
// out of reach for other origins. It appears in no URL and not in the list of streams.

const STORAGE_KEY = "headrace.key";
const byId = (id) => document.getElementById(id);

/** Headers for every call of this page. */
export function credentials() {
  const key = sessionStorage.getItem(STORAGE_KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

let prompting = null;

/** Waits until the user has entered a key; all callers share one form. `problem`: why the last key was refused. */
export function promptForKey(problem) {
  prompting ??= new Promise((resolve) => {
    const hadOne = sessionStorage.getItem(STORAGE_KEY) !== null;
    byId("key-problem").textContent = hadOne ? `${problem}.` : "";
    const submit = (event) => {
      event.preventDefault();
      const key = byId("key").value.trim();
      if (!key) return;
      byId("key").value = "";
      byId("key-form").removeEventListener("submit", submit);
      sessionStorage.setItem(STORAGE_KEY, key);
      prompting = null;
      byId("login").close();
      showForgetButton();
      resolve();
    };
    byId("key-form").addEventListener("submit", submit);
    byId("login").showModal();
  });
  return prompting;
}

/** Shows the button that forgets the key, if there is a key. */
export function showForgetButton() {
  byId("forget-key").hidden = sessionStorage.getItem(STORAGE_KEY) === null;
}

export function watchKey() {
  byId("login").addEventListener("cancel", (event) => event.preventDefault()); // Escape must not close the form
  byId("forget-key").addEventListener("click", () => {
    sessionStorage.removeItem(STORAGE_KEY);
    location.reload();
  });
  showForgetButton();
}
