"""One timer for the periodic tasks of a process: those that are due together wake together.

Tasks that poll Redis in one turn of the event loop share one exchange (``shared/broker/shared_connection.py``), so an
idle process wakes a few times a second instead of once for each task.
"""

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

_all: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, "_Polls"]()


def next_poll(period_s: float) -> asyncio.Future[float]:
    """Return a future for the next multiple of ``period_s`` since the first call in this event loop. Its result is
    the seconds by which the event loop was late."""
    loop = asyncio.get_running_loop()
    polls = _all.get(loop)
    if polls is None:
        polls = _all[loop] = _Polls(loop.time())
    return polls.next(period_s)


class _Polls:
    """``origin_s``: time of the event loop from which the periods are counted."""

    def __init__(self, origin_s: float) -> None:
        self._origin_s = origin_s
        self._waiting: dict[int, list[asyncio.Future[float]]] = {}  # by the time of the poll, in ms after the origin

    def next(self, period_s: float) -> asyncio.Future[float]:
        loop = asyncio.get_running_loop()
        period_ms = round(period_s * 1000)
        now_ms = int((loop.time() - self._origin_s) * 1000)
        due_ms = (now_ms // period_ms + 1) * period_ms
        waiting = self._waiting.get(due_ms)
        if waiting is None:
            waiting = self._waiting[due_ms] = []
            loop.call_at(self._origin_s + due_ms / 1000, self._begin, due_ms)
        woken: asyncio.Future[float] = loop.create_future()
        waiting.append(woken)
        return woken

    def _begin(self, due_ms: int) -> None:
        late_s = max(0.0, asyncio.get_running_loop().time() - self._origin_s - due_ms / 1000)
        for woken in self._waiting.pop(due_ms):
            if not woken.done():
                woken.set_result(late_s)
