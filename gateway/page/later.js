// Work that may wait, in slices that leave the browser time to draw and to take input. The newest comes first.

const SLICE_MS = 8;
const waiting = [];
let timer = 0;

/** Calls `work` soon, unless `forgetLater` comes first. */
export function later(work) {
  waiting.push(work);
  timer ||= setTimeout(run);
}

export function forgetLater() {
  waiting.length = 0;
}

function run() {
  const end = performance.now() + SLICE_MS;
  while (waiting.length > 0 && performance.now() < end) waiting.pop()();
  timer = waiting.length > 0 ? setTimeout(run) : 0;
}
