"""One connection for the short calls of a whole process: those of a moment go out together."""

import asyncio
from collections.abc import Sequence
from typing import Any

from shared.broker.line import Command, Line


class Trunk:
    """For any number of tasks at once; what is said over ``line`` while an exchange is under way makes the next."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._waiting: list[tuple[Sequence[Command], asyncio.Future[list[Any]]]] = []
        self._sending: asyncio.Task[None] | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As :meth:`Line.exchange`."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return await answer

    async def aclose(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        await self._line.aclose()

    async def _send(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            try:
                answers = await self._line.exchange([command for commands, _ in together for command in commands])
            except Exception as error:  # noqa: BLE001  it is raised, to each who waits
                for _, answer in together:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for commands, answer in together:
                mine, answers = answers[: len(commands)], answers[len(commands) :]
                if not answer.done():
                    answer.set_result(mine)
