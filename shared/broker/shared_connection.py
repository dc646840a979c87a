"""One multiplexed connection for the short calls of a whole process; concurrent calls share an exchange."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from shared.broker.pipeline_connection import Command, PipelineConnection, pack

#: Callers served in one exchange, so that many large answers do not meet one deadline together.
_MOST_CALLERS: Final = 64
#: Exchanges that overlap if the server is far away.
_MOST_EXCHANGES: Final = 8


class SharedConnection:
    """A connection for any number of tasks. Calls that arrive during an exchange are sent together in the next. If
    the server is far away, the next one does not wait for the reply."""

    def __init__(self, connection: PipelineConnection) -> None:
        self._connection = connection
        self.target = connection.target
        self._waiting: list[tuple[bytes, int, asyncio.Future[list[Any]]]] = []
        self._exchanges = 0
        self._sending = set[asyncio.Task[None]]()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; see :meth:`PipelineConnection.exchange`."""
        if not commands:
            return []
        packed = b"".join([pack(command) for command in commands])
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((packed, len(commands), reply))
        if not self._exchanges or (self._connection.far_s and self._exchanges < _MOST_EXCHANGES):
            self._exchanges += 1
            task = asyncio.create_task(self._send())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await reply

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._exchanges

    async def aclose(self) -> None:
        for task in self._sending:
            task.cancel()
        await self._connection.aclose()

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._exchanges -= 1

    async def _send_some(self) -> None:
        together, self._waiting = self._waiting[:_MOST_CALLERS], self._waiting[_MOST_CALLERS:]
        packed, counts, callers = zip(*together, strict=True)
        try:
            replies = await self._connection.exchange_packed(b"".join(packed), sum(counts))
        except Exception as error:  # noqa: BLE001  every caller gets it
            if isinstance(error, TimeoutError):  # later callers would wait as long again
                callers += tuple(caller for _, _, caller in self._waiting)
                self._waiting = []
            for caller in callers:
                if not caller.done():
                    caller.set_exception(error)
            return
        for count, caller in zip(counts, callers, strict=True):
            own, replies = replies[:count], replies[count:]
            if not caller.done():
                caller.set_result(own)
