// The page for operators: looks at everything every two seconds while it is in sight.

import { askOnce } from "../api.js";
import { showForget, watchKey } from "../key.js";
import { Detail } from "./detail.js";
import { showChart, showFailures, showFigures, showProcesses } from "./figures.js";
import { StreamTable } from "./streams.js";
import { timeOfDay } from "./words.js";

const EVERY_MS = 2000;
const by = (id) => document.getElementById(id);

const detail = new Detail();
const table = new StreamTable((id) => detail.open(id));
let timer = 0;

function show(seen) {
  by("all").hidden = false;
  showFigures(by("figures"), seen);
  showChart(by("chart"), by("chart-words"), by("legend"), seen.minutes);
  showFailures(by("failures"), seen);
  showProcesses(by("processes"), seen);
  table.show(seen);
  by("freshness").textContent = `as of ${timeOfDay(seen.at)}`;
}

function complain(message) {
  by("trouble").hidden = message === "";
  by("trouble").textContent = message;
}

/** Once more after a while, unless it is told that it may not: then a key that may is asked for by reloading. */
async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    show(await askOnce("/ops/overview"));
    complain("");
  } catch (error) {
    complain(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`);
    if (error.status === 403) {
      by("all").hidden = true;
      return;
    }
  } finally {
    showForget();
  }
  timer = setTimeout(look, EVERY_MS);
}

document.addEventListener("visibilitychange", look);
by("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = by("find-id").value.trim();
  if (id) detail.open(id);
  by("find-id").value = "";
});

watchKey();
look().then(() => {
  const id = location.hash.slice(1);
  if (/^[0-9a-f]{34}$/.test(id) && !by("all").hidden) detail.open(id);
});
