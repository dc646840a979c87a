"""A connection to Redis that sends whole pipelines, several at a time if its callers want that.

redis-py connects and logs in; commands are packed and replies read here, a whole pipeline at a time under one
deadline. A checkout from a pool, and a timer for every reply, would cost more than the commands (bench/NOTES.md).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.broker.connection_pool import pool_of
from shared.broker.redis_address import safe_address
from shared.broker.wire import Wire, connected

Command = tuple[str | int | float | bytes | memoryview, ...]

#: Round trip from which a second exchange is worth its cost while the first is in flight. Within a zone, one at a
#: time is cheaper, because calls that wait go together; other zones of a region are about a millisecond away.
_FAR_S: Final = 0.0007
#: Only small exchanges measure the round trip: a busy server takes its time for large ones.
_SMALL_BYTES: Final = 1024
#: Growth of the measured round trip with each small exchange: it doubles in 700, if a network becomes slower.
_FORGETTING: Final = 1.001


def pack(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub is wrong
    return packed


_PING: Final = pack(("PING",))


class PipelineConnection:
    """A connection to one server. It connects at the first exchange, and again after an error. ``timeout_s`` limits
    connecting and each exchange. Exchanges may overlap; their replies come in the order of sending. An exchange that
    is cancelled breaks the connection, and the others are sent again."""

    def __init__(self, url: str, *, timeout_s: float = 5) -> None:
        self._pool = pool_of(url, timeout_s=None, connections=1)
        self._timeout_s = timeout_s
        self._wire: Wire | None = None
        self._connecting = asyncio.Lock()
        self._pending = deque[_Exchange]()
        self._shortest_s = math.inf
        self._watchdog: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.target = safe_address(url)

    @property
    def far_s(self) -> float:
        """Round trip to a server that is so far away that exchanges should overlap; 0 if it is near, or unknown."""
        return self._shortest_s if _FAR_S <= self._shortest_s < math.inf else 0.0

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
                return await self._exchange(self._wire, packed, count)
            except (RedisConnectionError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
        return await self._exchange(self._wire or await self._connect(), packed, count)

    async def aclose(self) -> None:
        """Close the connection for good: a task that is left over must not open it again."""
        self._is_closed = True
        if self._wire is not None:
            await self._drop(self._wire, wait=True)
        await self._pool.aclose()

    async def _connect(self) -> Wire:
        if self._is_closed:
            raise RedisConnectionError("the connection was closed")
        async with asyncio.timeout(self._timeout_s), self._connecting:
            if self._wire is None:
                self._wire = await connected(self._pool, self._take)
                self._wire.lost.add_done_callback(self._fail)
                await self._exchange(self._wire, _PING, 1)  # measures the round trip
            return self._wire

    async def _exchange(self, wire: Wire, packed: bytes, count: int) -> list[Any]:
        loop = asyncio.get_running_loop()
        exchange = _Exchange(count, time.monotonic(), loop.create_future())
        try:
            if wire.lost.done():
                wire.lost.result()
            self._pending.append(exchange)
            if self._watchdog is None:
                self._watchdog = loop.call_later(self._timeout_s, self._watch)
            wire.send(packed)
            await exchange.complete
        except BaseException:  # also a cancellation: half of an exchange may be under way
            await self._drop(wire)
            raise
        if len(packed) <= _SMALL_BYTES:
            self._shortest_s = min(self._shortest_s * _FORGETTING, time.monotonic() - exchange.begun_at)
        return exchange.replies

    def _take(self, replies: list[Any]) -> None:
        while replies and self._pending:
            exchange = self._pending[0]
            left = exchange.count - len(exchange.replies)
            exchange.replies += replies[:left]
            if len(replies) < left:
                return
            self._pending.popleft()
            if not exchange.complete.done():
                exchange.complete.set_result(None)
            replies = replies[left:]

    def _fail(self, lost: asyncio.Future[None]) -> None:
        if self._wire is not None and self._wire.lost is lost:
            self._end_all((None if lost.cancelled() else lost.exception()) or RedisConnectionError())

    def _end_all(self, error: BaseException) -> None:
        pending, self._pending = self._pending, deque()
        for exchange in pending:
            if not exchange.complete.done():
                exchange.complete.set_exception(error)

    def _watch(self) -> None:
        """End all exchanges if the first takes too long: they share a connection. One timer watches all of them: it
        is set again only when it fires."""
        self._watchdog = None
        if not self._pending:
            return
        left_s = self._pending[0].begun_at + self._timeout_s - time.monotonic()
        if left_s <= 0:
            self._end_all(TimeoutError())
        else:
            self._watchdog = asyncio.get_running_loop().call_later(left_s, self._watch)

    async def _drop(self, wire: Wire, *, wait: bool = False) -> None:
        """Close the connection, unless another exchange has done so."""
        if self._wire is not wire:
            return
        self._wire, self._shortest_s = None, math.inf
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        self._end_all(RedisConnectionError("the connection was closed"))
        await wire.close(wait=wait)


class _Exchange:
    """An exchange that waits for ``count`` replies."""

    __slots__ = ("begun_at", "complete", "count", "replies")

    def __init__(self, count: int, begun_at: float, complete: asyncio.Future[None]) -> None:
        self.count = count
        self.begun_at = begun_at
        self.complete = complete
        self.replies: list[Any] = []
