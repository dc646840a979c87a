"""One Redis pipeline for all streams of a worker. Ready calls are sent together; further deltas coalesce meanwhile.

At low load an append is sent at once; at high load a tick makes appends fewer and larger.
"""

import asyncio
from collections.abc import Callable

from shared.broker.client import run_scripts
from shared.broker.pipeline_connection import PipelineConnection
from shared.errors import BrokerUnavailable
from workers import metrics
from workers.writing.writer import StreamWriter

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.25


class Flusher:
    """Sender of the writers' calls. ``tick_s`` returns how long to coalesce before the next pipeline."""

    def __init__(self, connection: PipelineConnection, tick_s: Callable[[], float]) -> None:
        self._connection = connection
        self._tick_s = tick_s
        self._waiting: dict[StreamWriter, None] = {}  # an ordered set
        self._due: asyncio.Future[None] | None = None  # while nothing is sent
        self._timer: asyncio.TimerHandle | None = None

    def wake(self, writer: StreamWriter) -> None:
        """Put ``writer`` into the next pipeline."""
        self._waiting[writer] = None
        if self._timer is None and self._due is not None and not self._due.done():
            self._set_timer()

    async def run(self) -> None:
        """Run until cancelled: send one pipeline after another, with backoff while Redis is unavailable."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._until_due()
            waiting, self._waiting = self._waiting, {}
            ready = [(writer, call) for writer in waiting if (call := writer.next_call()) is not None]
            if not ready:
                continue
            with metrics.APPEND.time():
                replies = await run_scripts(self._connection, [call for _, call in ready])
            metrics.count_replies(replies)
            failed = []
            for (writer, _), reply in zip(ready, replies, strict=True):
                writer.settle(reply)
                if isinstance(reply, BrokerUnavailable):
                    failed.append(writer)
            if len(failed) == len(ready):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            for writer in failed:  # an error of one stream must not hold up the others
                self._waiting.pop(writer, None)
                asyncio.get_running_loop().call_later(_LONGEST_PAUSE_S, self.wake, writer)

    async def _until_due(self) -> None:
        """Wait for the first writer and for the tick after it, with one wake-up for both."""
        self._due = asyncio.get_running_loop().create_future()
        if self._waiting:
            self._set_timer()
        try:
            await self._due
        finally:
            self._due = None

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick_s(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._due is not None and not self._due.done():
            self._due.set_result(None)
