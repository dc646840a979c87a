// Texts for times, counts and states.

import { element } from "../dom.js";

const count = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (n) => (n >= 100_000 ? short : count).format(n);

/** Milliseconds between two times of the API; null if one of them is missing. */
export const between = (from, to) => (from && to ? Math.max(0, Date.parse(to) - Date.parse(from)) : null);

/** 420 ms, 3.2 s, 48 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(ms) {
  if (ms === null) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const min = Math.round(s / 60);
  if (s < 600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (min < 60) return `${min} min`;
  if (min < 1440) return `${Math.floor(min / 60)} h ${min % 60} min`;
  return `${Math.floor(min / 1440)} d ${Math.floor((min % 1440) / 60)} h`;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
export const timeOfDay = (moment) => clock.format(new Date(moment));

/** provider_rate_limited → provider rate limited */
export const words = (code) => code.replaceAll("_", " ");

/** A stream's state as text, and the name of its colour. */
export function stateOf(stream) {
  if (stream.is_cancelled) return ["cancelling", "cancelled"];
  if (stream.status === "running" && !stream.worker) return ["between workers", "queued"];
  return [stream.status, stream.status];
}

/** A class of streams in the queue, `interactive` or `batch`, as a chip. */
export function classChip(name, text = name) {
  const chip = element("span", "chip", text);
  chip.dataset.class = name;
  return chip;
}

/** The beginning of an id, which is enough to tell streams apart. */
export const shortId = (id) => `${id.slice(0, 10)}…`;
