// Operators' page: refreshes every two seconds while it is visible.

import { fetchJson } from "../api.js";
import { showForgetButton, watchKey } from "../key.js";
import { Detail } from "./detail.js";
import { showChart, showFailures, showFigures, showProcesses } from "./figures.js";
import { StreamTable } from "./streams.js";
import { timeOfDay } from "./labels.js";

const EVERY_MS = 2000;
const byId = (id) => document.getElementById(id);

const detail = new Detail();
const table = new StreamTable((id) => detail.open(id));
let timer = 0;

function show(overview) {
  byId("all").hidden = false;
  showFigures(byId("figures"), overview);
  showChart(byId("chart"), byId("chart-words"), byId("legend"), overview.minutes);
  showFailures(byId("failures"), overview);
  showProcesses(byId("processes"), overview);
  table.show(overview);
  byId("freshness").textContent = `as of ${timeOfDay(overview.at)}`;
}

function showProblem(message) {
  byId("trouble").hidden = message === "";
  byId("trouble").textContent = message;
}

/** Refreshes the page repeatedly. After a 403 it stops: a reload prompts for a key with the scope. */
async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    show(await fetchJson("/ops/overview"));
    showProblem("");
  } catch (error) {
    showProblem(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`);
    if (error.status === 403) {
      byId("all").hidden = true;
      return;
    }
  } finally {
    showForgetButton();
  }
  timer = setTimeout(refresh, EVERY_MS);
}

document.addEventListener("visibilitychange", refresh);
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("find-id").value.trim();
  if (id) detail.open(id);
  byId("find-id").value = "";
});

watchKey();
refresh().then(() => {
  const id = location.hash.slice(1);
  if (/^[0-9a-f]{34}$/.test(id) && !byId("all").hidden) detail.open(id);
});
