"""The exchanges that a loop has in flight with one node."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

from shared.broker.cluster.servers import NodeConnection

#: Exchanges in flight with a node that is far away.
_MOST: Final = 16


class Exchanges:
    """Runs exchanges: one at a time with a node that is near, else several at once. An exchange returns False if it
    failed. ``on_error``: called with the error of one that nobody awaits."""

    def __init__(self, connection: NodeConnection, on_error: Callable[[BaseException], None]) -> None:
        self._connection = connection
        self._on_error = on_error
        self._running = set[asyncio.Task[bool]]()

    @property
    def pause_s(self) -> float:
        """Time between the beginnings of two exchanges, so that they spread over the round trip."""
        return self._connection.far_s / _MOST if self._running else 0.0

    async def run(self, exchange: Coroutine[None, None, bool], then: Callable[[bool], None]) -> None:
        """Run an exchange, and return once the next may begin. ``then``: called at its end, with False if it failed,
        raised an error or was cancelled."""
        if not self._running and not self._connection.far_s:
            is_done = False
            try:
                is_done = await exchange
            finally:
                then(is_done)
            return
        task = asyncio.create_task(exchange)
        self._running.add(task)
        task.add_done_callback(partial(self._settle, then))
        while len(self._running) >= (_MOST if self._connection.far_s else 1):
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def cancel(self) -> None:
        """End all exchanges."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def _settle(self, then: Callable[[bool], None], task: asyncio.Task[bool]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        then(not task.cancelled() and error is None and task.result())
        if error is not None:
            self._on_error(error)
