"""Prometheus metrics that gateways and workers share, and their exposition.

Every process has its own endpoint. If several share ``PROMETHEUS_MULTIPROC_DIR``, each endpoint has the sum of all,
so that workers on one machine need no port each. Label sets are bounded.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from shared.polling import next_poll
from shared.protocol.ledger import NANOS, LedgerEntry
from shared.version import VERSION

#: prometheus-client reads this variable at its first import, and stores its values in that directory.
MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
_CHECK_EVERY_S: Final = 1.0

BUILD_INFO = Gauge("headrace_build_info", "1, labelled with the version", ["version"], multiprocess_mode="livemax")
BUILD_INFO.labels(VERSION).set(1)
SWEPT = Counter(
    "headrace_swept_streams_total", "Streams that the sweep of this process re-queued or ended", ["reason"]
)
for _reason in ("queued_again", "queue_timeout", "worker_lost", "cancelled"):
    SWEPT.labels(_reason)
DROPPED = Counter(
    "headrace_dropped_answers_total",
    "Answers that were dropped before the end of their retention",
    ["reason"],
)
for _reason in ("memory", "stored_bytes"):
    DROPPED.labels(_reason)
ILLEGAL_TRANSITIONS = Counter(
    "headrace_illegal_transitions_total",
    "Replies of Redis with a status that the table of transitions excludes, by script",
    ["step"],
)
REDIS_TROUBLE = Gauge(
    "headrace_redis_trouble",
    "1 while a process cannot use Redis for this reason",
    ["reason"],
    multiprocess_mode="livemax",
)
COST = Counter(
    "headrace_cost",
    "Cost of the streams that this process has ended, by the configured prices",
    ["provider", "model", "currency"],
)
LOOP_LAG = Histogram(
    "headrace_event_loop_lag_seconds",
    "Lateness of a timer of this process: the longest wait that it adds to a token",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)


def count_costs(ledger: Iterable[LedgerEntry]) -> None:
    """Count the costs of a stream that has ended. Only targets with a price have a label."""
    for entry in ledger:
        if entry.cost_nanos:
            COST.labels(entry.provider, entry.model, entry.currency).inc(entry.cost_nanos / NANOS)


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(registry())


def registry() -> CollectorRegistry:
    """Return the registry to expose: of this process, or of all that share a folder."""
    folder = os.environ.get(MULTIPROCESS_DIR)
    if not folder:
        return REGISTRY
    shared = CollectorRegistry()
    _LiveProcessCollector(shared, folder)  # type: ignore[no-untyped-call]
    return shared


class _LiveProcessCollector(MultiProcessCollector):
    """Collector that drops gauges of ended processes at each collection, since a registry may be long-lived."""

    def collect(self) -> Iterable[Metric]:
        _drop_ended_processes(Path(self._path))
        found: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]
        return found


class LoopLag:
    """Event loop lag. ``worst_s`` is the recent maximum, which decays by a third at each check."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def run(self) -> None:
        """Run until cancelled: measure the lag."""
        while True:
            lag_s = await next_poll(_CHECK_EVERY_S)
            LOOP_LAG.observe(lag_s)
            self.worst_s = max(lag_s, self.worst_s * 2 / 3)


def _drop_ended_processes(folder: Path) -> None:
    """Delete gauges of killed processes, which would be counted without end. Counters must remain."""
    for path in folder.glob("gauge_live*.db"):
        process = re.search(r"_(\d+)\.db$", path.name)
        if process and not _is_running(int(process[1])):
            with suppress(FileNotFoundError):
                path.unlink()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
