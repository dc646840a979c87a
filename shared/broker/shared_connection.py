"""One multiplexed connection for the short calls of a whole process; concurrent calls share an exchange."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from shared.broker.pipeline_connection import Command, PipelineConnection, pack

#: Callers served in one exchange, so that many large answers do not meet one deadline together.
_MOST_CALLERS: Final = 64


class SharedConnection:
    """A connection for any number of tasks. Calls that arrive during an exchange are sent together in the next."""

    def __init__(self, connection: PipelineConnection) -> None:
        self._connection = connection
        self.target = connection.target
        self._waiting: list[tuple[bytes, int, asyncio.Future[list[Any]]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; see :meth:`PipelineConnection.exchange`."""
        if not commands:
            return []
        packed = b"".join([pack(command) for command in commands])
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((packed, len(commands), reply))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await reply

    @property
    def is_idle(self) -> bool:
        return not self._waiting and (self._sending is None or self._sending.done())

    async def aclose(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        await self._connection.aclose()

    async def _send(self) -> None:
        while self._waiting:
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
                continue
            for count, caller in zip(counts, callers, strict=True):
                own, replies = replies[:count], replies[count:]
                if not caller.done():
                    caller.set_result(own)
