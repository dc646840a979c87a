"""Timers of many streams, each with its own period, from one timer of the event loop."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable

#: uvloop's timers count milliseconds: a callback that is due within the rounding is due now.
_ROUNDING_S = 0.0006


class Metronome:
    """Calls each added function when it is due. If it returns seconds, it is called again that long after it was due;
    if it returns None, it is removed."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], float | None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def add(self, delay_s: float, beat: Callable[[], float | None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._numbers), beat))
        self._arm()

    def _fire(self) -> None:
        self._timer = None
        due = self._due
        horizon = time.monotonic() + _ROUNDING_S
        while due and due[0][0] <= horizon:
            at, number, beat = due[0]
            after = beat()
            if after is None:
                heapq.heappop(due)
            else:
                heapq.heapreplace(due, (at + after, number, beat))
        self._arm()

    def _arm(self) -> None:
        if not self._due:
            return
        at = self._due[0][0]
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        delay_s = max(0.0, at - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)
