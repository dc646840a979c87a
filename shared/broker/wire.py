"""One connection to Redis as a protocol: it hands on replies as they arrive, without a reader and its task.

redis-py connects and logs in, and closes. Between, the transport's protocol is ours. It uses three private attributes
of redis-py's connection, which is why pyproject.toml pins redis to one minor version.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError

_CLOSED: Final = "Redis closed the connection"


class Wire(asyncio.Protocol):
    """``on_replies`` gets the replies that arrived together; an error reply is among them. ``lost`` ends with the
    error of the connection, or with what ``on_replies`` raised. ``reads``: number of times that data arrived."""

    def __init__(self, pool: ConnectionPool, connection: Any, on_replies: Callable[[list[Any]], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reads = 0
        self._pool = pool
        self._connection = connection
        self._on_replies = on_replies
        self._parser = hiredis.Reader(replyError=connection._parser.parse_error)
        self._transport: asyncio.Transport = connection._writer.transport
        self._before = self._transport.get_protocol()
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            self._lose(RedisConnectionError(_CLOSED))

    def send(self, packed: bytes) -> None:
        try:
            self._transport.write(packed)
        except RuntimeError as error:  # uvloop raises it if the peer has just reset the connection
            self._lose(RedisConnectionError(str(error)))

    async def close(self, *, wait: bool = False) -> None:
        """Close the connection. ``wait`` for it, which can take long if the connection is broken."""
        self.lost.cancel()
        await self._connection.disconnect(nowait=not wait)
        await self._pool.release(self._connection)

    # --- called by the loop

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        try:
            replies = self._parsed(data)
            if replies and not self.lost.done():
                self._on_replies(replies)
        except hiredis.ProtocolError as error:
            self._lose(InvalidResponse(str(error)))
        except Exception as error:  # noqa: BLE001  it is raised where the connection is awaited
            self._lose(error)

    def _parsed(self, data: bytes) -> list[Any]:
        self._parser.feed(data)
        replies: list[Any] = []
        while (reply := self._parser.gets()) is not False:  # RESP2 has no booleans
            # LOADING and similar: no later reply can be trusted. READONLY: this is no longer the master.
            if isinstance(reply, RedisConnectionError | ReadOnlyError):
                raise reply
            replies.append(reply)
        return replies

    def eof_received(self) -> bool | None:
        self._lose(RedisConnectionError(_CLOSED))
        return self._before.eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(error if isinstance(error, OSError) else RedisConnectionError(_CLOSED))
        self._before.connection_lost(error)  # redis-py waits there for the end

    def pause_writing(self) -> None:
        """Go on: only a few exchanges wait for their replies at once, so little more can pile up."""

    def resume_writing(self) -> None:
        """See :meth:`pause_writing`."""

    def _lose(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)
            self.lost.exception()  # mark it as retrieved: an idle connection may break unnoticed


async def connected(pool: ConnectionPool, on_replies: Callable[[list[Any]], None]) -> Wire:
    """Return a wire that redis-py has logged in."""
    return Wire(pool, await pool.get_connection(), on_replies)
