"""The Prometheus metrics that gateways and workers have in common, and how a process tells its own.

Every process has an endpoint of its own. Where several share ``PROMETHEUS_MULTIPROC_DIR``, any of them tells the sum
of all, which is what a machine wants whose workers cannot each have a port. Label sets are bounded.
"""

import asyncio
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from shared.version import VERSION

#: The client library reads it when it is first imported, and keeps its values in files there.
MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
_LOOK_EVERY_S: Final = 0.5

BUILD_INFO = Gauge("headrace_build_info", "1, labelled with the version", ["version"], multiprocess_mode="livemax")
BUILD_INFO.labels(VERSION).set(1)
SWEPT = Counter("headrace_swept_streams_total", "What the sweep did, by this process", ["reason"])
LOOP_LAG = Histogram(
    "headrace_event_loop_lag_seconds",
    "By how much a timer of this process was late: what every token waits at worst",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)


def exposition() -> bytes:
    """In Prometheus' text format."""
    return generate_latest(registry())


def registry() -> CollectorRegistry:
    """What to tell: of this process, or of all that share a folder."""
    folder = os.environ.get(MULTIPROCESS_DIR)
    if not folder:
        return REGISTRY
    shared = CollectorRegistry()
    _OfTheLiving(shared, folder)  # type: ignore[no-untyped-call]
    return shared


class _OfTheLiving(MultiProcessCollector):
    """Looks who lives whenever it is asked: a registry may be kept for as long as its process."""

    def collect(self) -> Iterable[Metric]:
        _forget_the_dead(Path(self._path))
        found: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]
        return found


class LoopLag:
    """``worst_s``: in the last while."""

    def __init__(self) -> None:
        self.worst_s = 0.0

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)
            lag_s = max(0.0, loop.time() - due)
            LOOP_LAG.observe(lag_s)
            self.worst_s = max(lag_s, self.worst_s * 0.8)


def _forget_the_dead(folder: Path) -> None:
    """Gauges of a process that was killed would be counted for ever; its counters stay, as they must."""
    for path in folder.glob("gauge_live*.db"):
        process = re.search(r"_(\d+)\.db$", path.name)
        if process and not _lives(int(process[1])):
            with suppress(FileNotFoundError):
                path.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
