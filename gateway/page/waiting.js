// Words for an answer that does not flow: why nothing comes yet, or nothing more.

/** Time without an event after which an answer counts as silent. */
export const SILENT_MS = 3000;

/** [state, note] for a `waiting` event: {state, position, workers}. */
export function describeWaiting({ state, position, workers }) {
  if (state === "worker_lost") return ["waiting", "the worker was lost; another one takes over"];
  if (state === "queued") return ["queued", describeQueue(position, workers)];
  return ["waiting", state === "taken" ? "a worker prepares the request" : "waiting for the model"];
}

export function describeQueue(position, workers) {
  if (workers === 0) return "no worker is running";
  return position ? `number ${position} in the queue` : "waiting for a free worker";
}

/** Calls `silent` once nothing has been heard for a while. */
export class SilenceWatch {
  constructor(silent) {
    this.silent = silent;
    this.timer = 0;
  }

  heard() {
    this.stop();
    this.timer = setTimeout(this.silent, SILENT_MS);
  }

  stop() {
    clearTimeout(this.timer);
  }
}
