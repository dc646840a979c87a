"""A connection of one's own, for a task that talks to Redis all the time.

redis-py makes it and logs in; what is said over it is packed and read here, a whole pipeline at a time under one
deadline. A checkout from a pool, and a timer for every reply, cost more than the commands (bench/NOTES.md).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from shared.broker.connection_pool import pool_of

Command = tuple[str | int | float | bytes | memoryview, ...]

_READ_BYTES: Final = 256 * 1024
#: A channel that is silent for this long is asked whether it lives.
_SILENT_S: Final = 2.0


def pack(command: Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # a slip of its stub
    return packed


class PipelineConnection:
    """Connects at the first exchange, and again after trouble. For one task at a time. ``timeout_s``: for connecting
    and for an exchange."""

    def __init__(self, url: str, *, timeout_s: float = 5) -> None:
        self._pool = pool_of(url, timeout_s=None, connections=1)
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands and return one reply each; an error reply of Redis is returned, not raised. Raises
        ``REDIS_ERRORS``. A connection that broke since its last use is replaced, so every command must be safe to
        send twice."""
        if not commands:
            return []
        return await self.exchange_packed(b"".join([pack(command) for command in commands]), len(commands))

    async def exchange_packed(self, packed: bytes, count: int) -> list[Any]:
        """The same for ``count`` commands that the caller has packed."""
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
                answers = await wire.read()
                while len(answers) < count:
                    answers += await wire.read()
        except BaseException:  # whatever it is, half of an exchange may be on its way
            await self._drop()
            raise
        return answers

    async def _drop(self, *, wait: bool = False) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close(wait=wait)


async def listen(url: str, channel: str, *, timeout_s: float = 5) -> AsyncGenerator[list[bytes], None]:
    """What is published to ``channel``, in lists of what came together; the first one, empty, says that nothing is
    missed from now on. Ends by raising what ``REDIS_ERRORS`` names."""
    pool = pool_of(url, timeout_s=None, connections=1)
    wire: _Wire | None = None
    try:
        async with asyncio.timeout(timeout_s):
            wire = await _connected(pool)
            await wire.send(pack(("SUBSCRIBE", channel)))
        asked = False
        while True:
            try:
                async with asyncio.timeout(timeout_s if asked else _SILENT_S):
                    came = await wire.read()
            except TimeoutError:
                if asked:
                    raise
                asked = True
                await wire.send(pack(("PING",)))
            else:
                asked = False
                for answer in came:
                    if isinstance(answer, Exception):
                        raise answer
                if came[0][0] == b"subscribe":
                    yield []
                if messages := [answer[2] for answer in came if answer[0] == b"message"]:
                    yield messages
    finally:
        if wire is not None:
            await wire.close()
        await pool.aclose()


class _Wire:
    """One connection that redis-py has made and logged in, its streams in our hands."""

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
        except RuntimeError as error:  # uvloop's word for a connection that its peer has just reset
            raise RedisConnectionError(str(error)) from error

    async def read(self) -> list[Any]:
        """All answers that have come; waits for one."""
        answers: list[Any] = []
        while not answers:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise RedisConnectionError("Redis closed the connection")
            self._parser.feed(data)
            while (answer := self._parser.gets()) is not False:  # RESP2 has no booleans
                # LOADING and its like: nothing that follows holds. READONLY: this is no master any more.
                if isinstance(answer, RedisConnectionError | ReadOnlyError):
                    raise answer
                answers.append(answer)
        return answers

    async def close(self, *, wait: bool = False) -> None:
        """``wait`` until it is closed, which a broken one may take its time for."""
        await self._connection.disconnect(nowait=not wait)
        await self._pool.release(self._connection)


async def _connected(pool: ConnectionPool) -> _Wire:
    return _Wire(pool, await pool.get_connection())
