"""One pipeline for all streams of a worker: what is ready goes out together, and while it is away the next gathers.

At low load an append leaves at once; at high load a tick makes them fewer and larger.
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
    """``tick_s``: how long to gather before each pipeline, as of now."""

    def __init__(self, line: PipelineConnection, tick_s: Callable[[], float]) -> None:
        self._line = line
        self._tick_s = tick_s
        self._waiting: dict[StreamWriter, None] = {}  # a set that keeps its order
        self._woken = asyncio.Event()

    def wake(self, writer: StreamWriter) -> None:
        """``writer`` has something to send."""
        self._waiting[writer] = None
        self._woken.set()

    async def run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            await self._woken.wait()
            await asyncio.sleep(self._tick_s())
            self._woken.clear()
            waiting, self._waiting = self._waiting, {}
            ready = [(writer, call) for writer in waiting if (call := writer.next_call()) is not None]
            if not ready:
                continue
            with metrics.APPEND.time():
                answers = await run_scripts(self._line, [call for _, call in ready])
            for (writer, _), answer in zip(ready, answers, strict=True):
                writer.settle(answer)
            if any(isinstance(answer, BrokerUnavailable) for answer in answers):
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                pause_s = _FIRST_PAUSE_S
