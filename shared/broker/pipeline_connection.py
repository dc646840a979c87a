"""A dedicated connection for a task that uses Redis all the time.

redis-py connects and logs in; commands are packed and replies read here, a whole pipeline at a time under one
deadline. A checkout from a pool, and a timer for every reply, would cost more than the commands (bench/NOTES.md).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError

from shared.broker.connection_pool import pool_of
from shared.broker.redis_address import safe_address

Command = tuple[str | int | float | bytes | memoryview, ...]

_READ_BYTES: Final = 256 * 1024
#: Idle time after which a subscription sends a PING.
_PING_AFTER_S: Final = 2.0


def pack(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub is wrong
    return packed


class PipelineConnection:
    """A connection for one task at a time. It connects at the first exchange, and again after an error. ``timeout_s``
    limits connecting and each exchange."""

    def __init__(self, url: str, *, timeout_s: float = 5) -> None:
        self._pool = pool_of(url, timeout_s=None, connections=1)
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
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
            async with asyncio.timeout(self._timeout_s):
                if self._wire is None:
                    self._wire = await _connected(self._pool)
                wire = self._wire
                await wire.send(packed)
                replies = await wire.read()
                while len(replies) < count:
                    replies += await wire.read()
        except BaseException:  # also a cancellation: half of an exchange may be under way
            await self._drop()
            raise
        return replies

    async def _drop(self, *, wait: bool = False) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close(wait=wait)


async def listen(url: str, *channels: str, timeout_s: float = 5) -> AsyncGenerator[list[bytes], None]:
    """Yield the messages published to ``channels``, in lists of those that arrived together. The first list is empty:
    from then on no message is missed. Ends by raising one of ``REDIS_ERRORS``."""
    pool = pool_of(url, timeout_s=None, connections=1)
    wire: _Wire | None = None
    try:
        async with asyncio.timeout(timeout_s):
            wire = await _connected(pool)
            await wire.send(pack(("SUBSCRIBE", *channels)))
        pinged = False
        while True:
            try:
                async with asyncio.timeout(timeout_s if pinged else _PING_AFTER_S):
                    replies = await wire.read()
            except TimeoutError:
                if pinged:
                    raise
                pinged = True
                await wire.send(pack(("PING",)))
            else:
                pinged = False
                for reply in replies:
                    if isinstance(reply, Exception):
                        raise reply
                if replies[-1][0] == b"subscribe" and replies[-1][2] == len(channels):
                    yield []
                if messages := [reply[2] for reply in replies if reply[0] == b"message"]:
                    yield messages
    finally:
        if wire is not None:
            await wire.close()
        await pool.aclose()


class _Wire:
    """One connection that redis-py has made and logged in. It uses three private attributes of redis-py's connection,
    which is why pyproject.toml pins redis to one minor version."""

    def __init__(self, pool: ConnectionPool, connection: Any) -> None:
        self._pool = pool
        self._connection = connection
        self._reader: asyncio.StreamReader = connection._reader
        self._writer: asyncio.StreamWriter = connection._writer
        self._parser = hiredis.Reader(replyError=connection._parser.parse_error)

    async def send(self, packed: bytes) -> None:
        try:
            self._writer.write(packed)
            await self._writer.drain()
        except RuntimeError as error:  # uvloop raises it if the peer has just reset the connection
            raise RedisConnectionError(str(error)) from error

    async def read(self) -> list[Any]:
        """Return all replies that have arrived; wait for at least one."""
        replies: list[Any] = []
        while not replies:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise RedisConnectionError("Redis closed the connection")
            self._parser.feed(data)
            try:
                while (reply := self._parser.gets()) is not False:  # RESP2 has no booleans
                    # LOADING and similar: no later reply can be trusted. READONLY: this is no longer the master.
                    if isinstance(reply, RedisConnectionError | ReadOnlyError):
                        raise reply
                    replies.append(reply)
            except hiredis.ProtocolError as error:
                raise InvalidResponse(str(error)) from error
        return replies

    async def close(self, *, wait: bool = False) -> None:
        """Close the connection. ``wait`` for it, which can take long if the connection is broken."""
        await self._connection.disconnect(nowait=not wait)
        await self._pool.release(self._connection)


async def _connected(pool: ConnectionPool) -> _Wire:
    return _Wire(pool, await pool.get_connection())
