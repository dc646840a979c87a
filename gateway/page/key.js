// API key (or token), if the gateway requires one. It is stored in sessionStorage: it disappears with the tab and is
// out of reach for other origins. It appears in no URL and no link. Chats belong to the key's owner, and only the
// gateway has them: another key does not show them, and forgetting a key forgets them in all tabs, also in those that
// were at another site, frozen or closed meanwhile.

const STORAGE_KEY = "headrace.key";
const FORGOTTEN = "headrace.forgotten"; // in localStorage: a mark that changes when a tab forgets its key
const SINCE = "headrace.key.since"; // in sessionStorage: that mark, when the key was entered
export const DRAFTS = "headrace.drafts"; // in sessionStorage
const KEPT_IN_TAB = [STORAGE_KEY, SINCE, DRAFTS];
export const CHANGED = "headrace.changed"; // in localStorage: a mark that changes when a tab changes a chat
const KEPT_IN_BROWSER = ["headrace.model", "headrace.panel", CHANGED];
const OF_OLDER_PAGES = "headrace.streams"; // in localStorage: conversations, which are at the gateway now
localStorage.removeItem(OF_OLDER_PAGES);
const byId = (id) => document.getElementById(id);

const forgottenMark = () => localStorage.getItem(FORGOTTEN) ?? "";
const markOfPage = forgottenMark();
if (sessionStorage.getItem(STORAGE_KEY) && (sessionStorage.getItem(SINCE) ?? "") !== markOfPage) dropKey();

/** Returns true if a key was forgotten since this page was loaded: it keeps nothing then, and is about to reload. */
const isOutdated = () => forgottenMark() !== markOfPage;
export const currentKey = () => (isOutdated() ? null : sessionStorage.getItem(STORAGE_KEY));

function dropKey() {
  for (const name of KEPT_IN_TAB) sessionStorage.removeItem(name);
}

/** Stores a value in `storage`, unless a key was forgotten since this page was loaded. */
export function keep(storage, name, value) {
  if (!isOutdated()) storage.setItem(name, value);
}

/** Headers for every call of this page. */
export function credentials() {
  const key = currentKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The owner of a conversation: a hash of the user that a token names, or of the key; "" without a key. It has 32 bits,
 *  enough to distinguish the users of one browser and of no use to guess a key. */
export function ownerMark() {
  const key = currentKey();
  if (!key) return "";
  let hash = 0x811c9dc5;
  for (const c of userIn(key)) hash = Math.imul(hash ^ c.codePointAt(0), 0x01000193);
  return (hash >>> 0).toString(16);
}

/** The user that a token names; for anything else the key itself. */
function userIn(key) {
  try {
    const { iss, sub } = JSON.parse(atob(key.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return typeof sub === "string" ? JSON.stringify([iss, sub]) : key;
  } catch {
    return key;
  }
}

let prompting = null;

/** Waits until the user has entered a key that the gateway accepts; all callers share one form. `problem`: why the last
 *  key was refused; `refused`: that key, or null. If the tab has another key by now, there is nothing to wait for. Until
 *  then conversations are hidden; if the key is another user's, the page starts anew. */
export async function promptForKey(problem, refused) {
  if (prompting === null && currentKey() !== refused) return;
  prompting ??= new Promise((resolve) => {
    const hadOne = currentKey() !== null;
    const before = ownerMark();
    byId("key-problem").textContent = hadOne ? `${problem}.` : "";
    document.documentElement.classList.add("signed-out");
    const submit = async (event) => {
      event.preventDefault();
      const key = byId("key").value.trim();
      if (!key) return;
      byId("key").value = "";
      const refusal = await refusalOf(key);
      byId("key-problem").textContent = refusal;
      if (refusal) return;
      byId("key-form").removeEventListener("submit", submit);
      keep(sessionStorage, STORAGE_KEY, key);
      keep(sessionStorage, SINCE, markOfPage);
      if (isOutdated() || (ownerMark() !== before && byId("messages")?.hasChildNodes())) {
        startAnew();
        return; // the calls that wait are of the other user
      }
      prompting = null;
      byId("login").close();
      showForgetButton();
      document.documentElement.classList.remove("signed-out");
      window.dispatchEvent(new Event("owner"));
      resolve();
    };
    byId("key-form").addEventListener("submit", submit);
    byId("login").showModal();
  });
  await prompting;
}

/** Why the gateway refuses a key; "" if it does not. */
async function refusalOf(key) {
  const response = await fetch("/v1/models", { cache: "no-store", headers: { Authorization: `Bearer ${key}` } }).catch(
    () => null, // no response, or a key with characters that no header may have
  );
  if (!response) return "The key could not be checked: the gateway does not respond, or the key is malformed.";
  if (response.status !== 401) return "";
  const body = await response.json().catch(() => ({}));
  return `${body.error?.message ?? "the gateway refuses this key"}.`;
}

function startAnew() {
  for (const area of document.querySelectorAll("#messages, #history, .attached")) area.replaceChildren();
  for (const field of document.querySelectorAll("#prompt, #key")) field.value = ""; // a reload would restore it
  history.replaceState(null, "", location.pathname); // the chat was the other key's
  location.reload();
}

/** Forgets the key and what was asked with it, in this tab. */
function forgetInTab() {
  dropKey();
  startAnew();
}

/** Shows the button that forgets the key, if there is a key. */
export function showForgetButton() {
  byId("forget-key").hidden = currentKey() === null;
}

export function watchKey() {
  byId("login").addEventListener("cancel", (event) => event.preventDefault()); // Escape must not close the form
  byId("forget-key").addEventListener("click", () => {
    localStorage.setItem(FORGOTTEN, String(Math.random())); // first: nothing is kept from here on
    for (const name of KEPT_IN_BROWSER) localStorage.removeItem(name);
    forgetInTab();
  });
  window.addEventListener("storage", (event) => event.key === FORGOTTEN && forgetInTab());
  // A page that was put away, for Back, checks it when it returns.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && isOutdated()) forgetInTab();
  });
  showForgetButton();
}
