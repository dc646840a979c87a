"""The workers' counters, added up over their lives; a worker that is killed takes a second's worth with it."""

import asyncio
import re
import time
from collections import Counter

import httpx2

from tests.chaos.history import Span
from tests.chaos.rig import LEASE_S, Rig

ANSWERS = ("GAP", "MISSING", "BEHIND", "SUPERSEDED", "FULL", "CLOSED")
_LAG = re.compile(r"^headrace_event_loop_lag_seconds_sum ([\d.e+-]+)$", re.MULTILINE)
_LINE = re.compile(r'^headrace_(\w+)_total(?:\{\w+="(\w+)"\})? ([\d.e+]+)$', re.MULTILINE)


class Counters:
    """Counters of all workers; empty if they have no metrics."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._last: dict[tuple[int, int], Counter[str]] = {}
        self._lags: dict[tuple[int, int], tuple[float, float]] = {}

    @property
    def totals(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for counts in self._last.values():
            total.update(counts)
        return total

    def never(self) -> list[str]:
        """Return the replies and events that a full run must meet and did not."""
        totals = self.totals
        wanted = [f"append_answers {code}" for code in ANSWERS] + ["takeovers"]
        missing = [name for name in wanted if not totals[name]]
        if not any(name.startswith("swept_streams") for name in totals):
            missing.append("swept_streams")
        return missing if self._rig.metrics_ports else []

    async def follow(self) -> None:
        """Run until cancelled: read the counters twice a second."""
        while True:
            await asyncio.sleep(0.5)
            await self.read()

    async def read(self) -> None:
        await asyncio.gather(*(self._read(i, port) for i, port in enumerate(self._rig.metrics_ports)))

    async def _read(self, worker: int, port: int) -> None:
        process = self._rig.workers[worker]
        try:
            answer = await self._rig.http.get(f"http://127.0.0.1:{port}/metrics", timeout=0.5)
        except httpx2.HTTPError:
            return
        counts = Counter[str]()
        for name, label, value in _LINE.findall(answer.text):
            counts[f"{name} {label}".strip()] = round(float(value))
        self._last[worker, process.pid] = counts
        if found := _LAG.search(answer.text):
            self._note_lag(worker, process.pid, float(found[1]))

    def _note_lag(self, worker: int, pid: int, total_s: float) -> None:
        """Note that a worker may have lost its leases, if its event loop was late by half of one since the last
        look. A worker that a fault stops within its lease is late by less."""
        now = time.monotonic()
        since, before_s = self._lags.get((worker, pid), (now, total_s))
        self._lags[worker, pid] = now, total_s
        if total_s - before_s > LEASE_S / 2:
            self._rig.history.worker_out.setdefault(worker, []).append(Span(since - LEASE_S, now))
