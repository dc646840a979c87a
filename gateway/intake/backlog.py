"""Statistics of the queue: its length, its wait and its drain rate, read from Redis every second."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from gateway import metrics
from shared.broker.client import Client, run_commands
from shared.broker.keys import TAKEN, WAITING
from shared.broker.pipeline_connection import Command
from shared.broker.queue import batch_and_oldest, class_commands
from shared.errors import BrokerUnavailable, QueueFull
from shared.polling import next_poll

logger = logging.getLogger(__name__)

_READ_EVERY_S: Final = 1.0
_READ: Final[list[Command]] = [
    *(("ZCARD", WAITING), ("ZRANGE", WAITING, 0, 0, "WITHSCORES"), ("GET", TAKEN)),
]
_MEASURED_OVER_S: Final = 30
_LONGEST_WAIT_S: Final = 60
#: Wait from which the drain rate says something about the queue.
_LONG_S: Final = 5


class Backlog:
    """Statistics of the queue. ``longest_wait_s``: the queue timeout; while the queue takes longer, it counts as
    full. ``limited``: returns the providers with limits. ``waiting``: streams that wait, of which ``batch`` are
    batch streams."""

    def __init__(self, client: Client, longest_wait_s: float, limited: Callable[[], Iterable[str]] = tuple) -> None:
        self.waiting = 0
        self.batch = 0
        self._client = client
        self._longest_wait_s = longest_wait_s
        self._limited = limited
        self._oldest_s = 0.0  # wait of the longest waiting interactive stream; with batch streams, of the next one
        self._taken: deque[tuple[float, int]] = deque(maxlen=round(_MEASURED_OVER_S / _READ_EVERY_S) + 1)

    def is_slow(self, *, is_batch: bool) -> bool:
        """Return True if the streams that wait already take longer than the queue timeout. Batch streams do not delay
        interactive ones. The rate is low also if nothing waited for most of the time, so the oldest one must have
        waited for a while."""
        rate = self.drain_rate
        waits_long = self._oldest_s >= min(_LONG_S, self._longest_wait_s / 10)
        ahead = self.waiting if is_batch else max(0, self.waiting - self.batch)
        return waits_long and bool(rate) and ahead / rate > self._longest_wait_s

    def refusal(self, waiting: int) -> QueueFull:
        """Suggest a retry once a tenth of the queue has been taken, so that retries do not all come to a full
        queue."""
        rate = self.drain_rate
        about = f", about {round(waiting / rate)} s" if rate else ""
        message = f"the queue is full: {waiting} requests wait{about}; try again later"
        wait_s = math.ceil(self.waiting / 10 / rate) if rate else _LONGEST_WAIT_S / 4
        return QueueFull(message, round(min(_LONGEST_WAIT_S, max(1, wait_s))))

    @property
    def drain_rate(self) -> float:
        """Streams taken per second over the last 30 s; 0 if none."""
        if len(self._taken) <= 1:
            return 0
        (first_at, first), (last_at, last) = self._taken[0], self._taken[-1]
        return max(0, last - first) / (last_at - first_at)

    async def run(self) -> None:
        """Run until cancelled: read the queue's statistics and export them as metrics."""
        while True:
            try:
                commands = [*_READ, *class_commands(self._limited())]
                self.waiting, oldest, taken, *classes = await run_commands(self._client, commands)
            except BrokerUnavailable:
                logger.debug("queue statistics unavailable")
                metrics.REDIS_UP.set(0)
            else:
                metrics.REDIS_UP.set(1)
                self._taken.append((time.monotonic(), int(taken or 0)))
                metrics.QUEUE_DEPTH.set(self.waiting)
                oldest_s = max(0, time.time() - float(oldest[1]) / 1000) if oldest else 0
                batch, created = batch_and_oldest(classes)
                self.batch = min(batch, self.waiting)
                metrics.QUEUE_BATCH.set(self.batch)
                if self.batch and created is not None:
                    oldest_s = max(0, time.time() - created)
                self._oldest_s = oldest_s
                metrics.QUEUE_OLDEST.set(self._oldest_s)
            await next_poll(_READ_EVERY_S)
