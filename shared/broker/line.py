"""A connection of one's own, for a task that talks to Redis all the time.

redis-py makes it and logs in; what is said over it is packed and read here, a whole pipeline at a time under one
deadline. A checkout from a pool, and a timer for every reply, cost more than the commands (bench/NOTES.md).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.broker.pools import pool_of

Command = tuple[str | int | float | bytes | memoryview, ...]


def pack(command: Command) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # a slip of its stub
    return packed


def pack_argument(argument: bytes) -> bytes:
    """One argument as it stands inside a packed command, for those that change less often than they are sent."""
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


class Line:
    """Connects at the first exchange, and again after trouble. For one task at a time. ``timeout_s``: for connecting
    and for an exchange."""

    def __init__(self, url: str, *, timeout_s: float = 5) -> None:
        self._pool: ConnectionPool = pool_of(url, timeout_s=None, connections=1)
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, one for each; an error that Redis answers with is one of them. Raises what ``TROUBLE`` names.
        A connection that broke since its last use is not trouble: so every command must bear to be sent twice."""
        return await self.exchange_packed(b"".join([pack(command) for command in commands]), len(commands))

    async def exchange_packed(self, packed: bytes, count: int) -> list[Any]:
        """The same for ``count`` commands that the caller has packed."""
        if self._connection is not None:
            try:
                return await self._exchange(packed, count)
            except (RedisConnectionError, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise
        return await self._exchange(packed, count)

    async def aclose(self) -> None:
        await self._drop()
        await self._pool.aclose()

    async def _exchange(self, packed: bytes, count: int) -> list[Any]:
        answers: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._connection is None:
                    self._connection = await self._pool.get_connection()
                connection = self._connection
                await connection.send_packed_command(packed, check_health=False)
                while len(answers) < count:
                    try:
                        answers.append(await connection.read_response())
                    except ResponseError as error:
                        answers.append(error)
        except BaseException:  # whatever it is, half of an exchange may be on its way
            await self._drop()
            raise
        return answers

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
