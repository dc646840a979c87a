"""A dedicated connection for a task that uses Redis all the time.

redis-py connects and logs in; commands are packed and replies read here, a whole pipeline at a time under one
deadline. A checkout from a pool, and a timer for every reply, would cost more than the commands (bench/NOTES.md).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.broker.connection_pool import pool_of
from shared.broker.redis_address import safe_address
from shared.broker.wire import Wire, connected

Command = tuple[str | int | float | bytes | memoryview, ...]


def pack(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub is wrong
    return packed


class PipelineConnection:
    """A connection for one task at a time. It connects at the first exchange, and again after an error. ``timeout_s``
    limits connecting and each exchange."""

    def __init__(self, url: str, *, timeout_s: float = 5) -> None:
        self._pool = pool_of(url, timeout_s=None, connections=1)
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._replies: list[Any] = []
        self._count = 0
        self._complete: asyncio.Future[None] | None = None
        self._begun_at = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self.target = safe_address(url)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands and return one reply each; an error reply of Redis is returned, not raised. Raises
        ``REDIS_ERRORS``. A connection that broke since its last use is replaced, so every command must be safe to
        send twice."""
        if not commands:
            return []
        return await self.exchange_packed(b"".join([pack(command) for command in commands]), len(commands))

    async def exchange_packed(self, packed: bytes, count: int) -> list[Any]:
        """Send ``count`` commands that the caller has packed; otherwise as :meth:`exchange`."""
        if self._wire is not None:
            try:
                return await self._exchange(packed, count)
            except (RedisConnectionError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
        return await self._exchange(packed, count)

    async def aclose(self) -> None:
        await self._drop(wait=True)
        await self._pool.aclose()

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        try:
            if self._wire is None:
                async with asyncio.timeout(self._timeout_s):
                    self._wire = await connected(self._pool, self._take)
            wire, loop = self._wire, asyncio.get_running_loop()
            self._replies, self._count, self._begun_at = [], count, loop.time()
            self._complete = loop.create_future()
            wire.lost.add_done_callback(self._fail)
            if self._watchdog is None:
                self._watchdog = loop.call_later(self._timeout_s, self._watch)
            wire.send(packed)
            await self._complete
        except BaseException:  # also a cancellation: half of an exchange may be under way
            self._complete = None
            await self._drop()
            raise
        self._complete = None
        wire.lost.remove_done_callback(self._fail)
        return self._replies

    def _take(self, replies: list[Any]) -> None:
        self._replies += replies
        if len(self._replies) >= self._count and self._complete is not None and not self._complete.done():
            self._complete.set_result(None)

    def _fail(self, lost: asyncio.Future[None]) -> None:
        if self._complete is not None and not self._complete.done() and not lost.cancelled():
            self._complete.set_exception(lost.exception() or RedisConnectionError())

    def _watch(self) -> None:
        """End an exchange that takes too long. One timer watches all of them: it is set again only when it fires."""
        self._watchdog = None
        if self._complete is None or self._complete.done():
            return
        loop = asyncio.get_running_loop()
        left_s = self._begun_at + self._timeout_s - loop.time()
        if left_s <= 0:
            self._complete.set_exception(TimeoutError())
        else:
            self._watchdog = loop.call_later(left_s, self._watch)

    async def _drop(self, *, wait: bool = False) -> None:
        wire, self._wire = self._wire, None
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if wire is not None:
            await wire.close(wait=wait)
