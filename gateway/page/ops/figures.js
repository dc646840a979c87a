// Overview figures, a chart of ended streams per minute, failures, and processes.

import { element } from "../dom.js";
import { classChip, duration, number, words } from "./labels.js";

const SVG = "http://www.w3.org/2000/svg";
const ENDINGS = ["completed", "cancelled", "failed"];

export function showFigures(target, overview) {
  const workers = overview.workers.filter((worker) => !worker.draining);
  const slots = workers.reduce((sum, worker) => sum + worker.slots, 0);
  const busy = overview.workers.reduce((sum, worker) => sum + worker.streams, 0);
  const readers = overview.gateways.reduce((sum, gateway) => sum + gateway.readers, 0);
  const recent = overview.minutes.slice(-5);
  const ended = sum(recent, ...ENDINGS);
  const failed = sum(recent, "failed");
  target.replaceChildren(
    figure("live", "Live streams", number(overview.live), `${number(readers)} read now`),
    waitingFigure(overview),
    figure("slots", "Slots in use", slots ? `${number(busy)} / ${number(slots)}` : "no worker", `${plural(workers.length, "worker")}, ${plural(overview.gateways.length, "gateway")}`, slots === 0),
    figure("ended", "Ended in 5 min", number(ended), `${number(sum(recent, "tokens"))} tokens`),
    figure("failed", "Failed in 5 min", number(failed), ended ? `${((100 * failed) / ended).toFixed(failed && failed / ended < 0.1 ? 1 : 0)} % of all` : "nothing ended", failed > 0),
    ...overview.cost_today.map((cost) => figure("cost", "Cost today", money(cost), "calls that ended today, in UTC")),
  );
}

/** Says which class waits, and for how long: interactive streams, as long as there are any, since they are taken first. */
function waitingFigure({ waiting, waiting_batch: batch = 0, oldest_waiting_s: oldest, taken_per_s: taken }) {
  if (!waiting) return figure("waiting", "Waiting", "0", `${taken.toFixed(1)} started per second`);
  const interactive = waiting - batch;
  const first = interactive && batch ? "oldest interactive: " : "the oldest for ";
  const made = figure("waiting", "Waiting", number(waiting), first + duration(oldest * 1000));
  const classes = element("p", "classes");
  classes.dataset.testid = "waiting-classes";
  if (interactive) classes.append(classChip("interactive", `${number(interactive)} interactive`));
  if (batch) classes.append(classChip("batch", `${number(batch)} batch`));
  made.append(classes);
  return made;
}

const sum = (minutes, ...names) => minutes.reduce((all, minute) => all + names.reduce((n, name) => n + minute[name], 0), 0);
const money = (cost) => new Intl.NumberFormat("en", { style: "currency", currency: cost.currency, minimumFractionDigits: 2, maximumFractionDigits: cost.amount < 1 ? 4 : 2 }).format(cost.amount);
const plural = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

function figure(name, title, value, note, isBad = false) {
  const made = element("div", isBad ? "figure bad" : "figure");
  const shown = element("strong", "", value);
  shown.dataset.testid = `figure-${name}`;
  made.append(element("h2", "", title), shown, element("span", "quiet", note));
  return made;
}

/** Draws a bar for each minute, the newest at the right: completed at the bottom, then cancelled, then failed. */
export function showChart(target, summary, legend, minutes) {
  const width = 6;
  const height = 60;
  const top = Math.max(1, ...minutes.map((minute) => sum([minute], ...ENDINGS)));
  const chart = drawn("svg", { viewBox: `0 0 ${minutes.length * width} ${height}`, preserveAspectRatio: "none" });
  minutes.forEach((minute, at) => {
    let y = height;
    for (const ending of ENDINGS) {
      const part = (minute[ending] / top) * (height - 2);
      if (!part) continue;
      y -= part;
      chart.append(drawn("rect", { class: ending, x: at * width + 0.6, y, width: width - 1.2, height: part }));
    }
    if (y === height) chart.append(drawn("rect", { class: "nothing", x: at * width + 0.6, y: height - 0.8, width: width - 1.2, height: 0.8 }));
  });
  target.replaceChildren(chart);
  const totals = ENDINGS.map((ending) => [ending, sum(minutes, ending)]);
  legend.replaceChildren(
    ...totals.map(([ending, n]) => {
      const entry = element("span", "entry", `${ending} ${number(n)}`);
      entry.dataset.status = ending;
      return entry;
    }),
    element("span", "", `up to ${number(top)} per minute`),
  );
  summary.textContent = `In the last ${minutes.length} minutes: ${totals.map(([ending, n]) => `${n} ${ending}`).join(", ")}.`;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function showFailures(target, { failures, left_alone: openBreakers }) {
  const found = Object.entries(failures).sort((a, b) => b[1] - a[1]);
  const breakers = openBreakers.map((provider) => element("p", "alone", `circuit breaker open for ${provider}`));
  if (!found.length) return target.replaceChildren(...breakers, element("p", "quiet", "None."));
  const list = element("ul", "reasons");
  for (const [reason, n] of found.slice(0, 8)) {
    const entry = element("li");
    entry.append(element("span", "", words(reason || "unknown")), element("strong", "", number(n)));
    list.append(entry);
  }
  target.replaceChildren(...breakers, list);
}

export function showProcesses(target, overview) {
  const all = [...overview.workers.map((each) => ["worker", each]), ...overview.gateways.map((each) => ["gateway", each])];
  if (!all.length) return target.replaceChildren(element("p", "quiet", "No process has reported yet."));
  target.replaceChildren(...all.map(([kind, each]) => process(kind, each, overview.at)));
}

function process(kind, each, now) {
  const made = element("div", "process");
  made.dataset.kind = kind;
  const isWorker = kind === "worker";
  const name = element("div", "name");
  name.append(element("b", "", each.id), element("span", "quiet", `${each.host} · pid ${each.pid}`));
  const load = isWorker ? `${number(each.streams)} of ${number(each.slots)} slots` : `${number(each.streams)} streams, ${number(each.readers)} readers`;
  const meter = element("meter");
  meter.max = Math.max(1, isWorker ? each.slots : Math.max(each.readers, 1));
  meter.value = isWorker ? each.streams : 0;
  meter.hidden = !isWorker;
  meter.setAttribute("aria-label", load);
  const isMarked = each.draining || each.other_configuration;
  const up = each.other_configuration ? "other configuration" : each.draining ? "draining" : `up ${duration(Date.parse(now) - Date.parse(each.since))}`;
  made.append(name, element("span", "load", load), meter, element("span", isMarked ? "draining" : "quiet", up));
  return made;
}
