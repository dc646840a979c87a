"""One connection for the short calls of a whole process: those of a moment go out together."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from shared.broker.pipeline_connection import Command, PipelineConnection, pack

#: Callers served in one exchange, so that many large answers do not meet one deadline together.
_MOST_TOGETHER: Final = 64


class SharedConnection:
    """For any number of tasks at once; what is said over ``line`` while an exchange is under way makes the next."""

    def __init__(self, line: PipelineConnection) -> None:
        self._line = line
        self._waiting: list[tuple[bytes, int, asyncio.Future[list[Any]]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As :meth:`PipelineConnection.exchange`."""
        if not commands:
            return []
        packed = b"".join([pack(command) for command in commands])
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((packed, len(commands), answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def aclose(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        await self._line.aclose()

    async def _send(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
            packed, counts, callers = zip(*together, strict=True)
            try:
                answers = await self._line.exchange_packed(b"".join(packed), sum(counts))
            except Exception as error:  # noqa: BLE001  it is raised, to each who waits
                if isinstance(error, TimeoutError):  # who came later would wait as long for the same silence
                    callers += tuple(caller for _, _, caller in self._waiting)
                    self._waiting = []
                for caller in callers:
                    if not caller.done():
                        caller.set_exception(error)
                continue
            for count, caller in zip(counts, callers, strict=True):
                mine, answers = answers[:count], answers[count:]
                if not caller.done():
                    caller.set_result(mine)
