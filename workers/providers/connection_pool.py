"""Connections to one server: names resolved, addresses tried in turn, connections kept for the next request."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohappyeyeballs

from workers.providers.connection import Connection
from workers.providers.response import Response

#: Idle time after which a connection is not used again, as in the SDKs.
_KEEP_ALIVE_S: Final = 5.0
#: Time for which the addresses of a name are kept.
_ADDRESSES_S: Final = 10.0
#: Wait for one address before the next one is tried beside it (RFC 8305).
_NEXT_ADDRESS_S: Final = 0.25

Address = tuple[int, int, int, str, Any]


class ConnectionPool:
    """Connections to ``host`` and ``port``. ``make_context``: None for a server without TLS; called once. At
    most ``most_idle`` connections are kept while they are idle."""

    def __init__(
        self, host: str, port: int, make_context: Callable[[], ssl.SSLContext] | None, most_idle: int
    ) -> None:
        self._host = host
        self._make_context = make_context
        self._context: ssl.SSLContext | None = None
        self._most_idle = most_idle
        self._names = Names(host, port)
        self._all = set[Connection]()
        self._idle: list[Connection] = []
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def request(self, data: Sequence[bytes], connect_s: float) -> AsyncIterator[Response]:
        """Send a request, and yield its response once it has a head. Raises OSError; TimeoutError for the connection
        alone. A response that was not read to its end closes its connection.

        No request is sent twice: a server that closed the connection may have acted on it.
        """
        connection = self._idle_connection() or await self._connect(connect_s)
        try:
            response = connection.send(data)
            del data  # it may be large, and the answer long
            await response.wait_for_head()
            yield response
        finally:
            self._release(connection)

    def close(self) -> None:
        """Close all connections, also those in use."""
        for connection in tuple(self._all):
            connection.transport.abort()
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _idle_connection(self) -> Connection | None:
        """Return the connection that was used last, if its server has not closed it."""
        earliest = asyncio.get_running_loop().time() - _KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= earliest and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    async def _connect(self, connect_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        options = {} if self._make_context is None else self._tls_options(self._make_context)
        async with asyncio.timeout(connect_s):
            sock = await aiohappyeyeballs.start_connection(
                await self._names.addresses(), happy_eyeballs_delay=_NEXT_ADDRESS_S
            )
            try:
                _, connection = await loop.create_connection(lambda: Connection(self._all), sock=sock, **options)
            except BaseException:
                sock.close()
                raise
        return connection

    def _tls_options(self, make_context: Callable[[], ssl.SSLContext]) -> dict[str, Any]:
        self._context = self._context or make_context()
        return {"ssl": self._context, "server_hostname": self._host.rstrip(".")}

    def _release(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        if not connection.release(loop.time()):
            return
        if len(self._idle) >= self._most_idle:
            connection.transport.abort()
            return
        self._idle.append(connection)
        self._timer = self._timer or loop.call_later(_KEEP_ALIVE_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close the connections that have been idle for too long."""
        loop = asyncio.get_running_loop()
        earliest = loop.time() - _KEEP_ALIVE_S
        kept = [each for each in self._idle if each.idle_since > earliest and not each.transport.is_closing()]
        for connection in set(self._idle).difference(kept):
            connection.transport.abort()
        self._idle = kept
        self._timer = loop.call_at(kept[0].idle_since + _KEEP_ALIVE_S, self._close_idle) if kept else None


class Names:
    """Addresses of one name, looked up once for all that wait for them, and used in turn."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._addresses: list[Address] = []
        self._until = 0.0
        self._look_up: asyncio.Task[None] | None = None

    async def addresses(self) -> Sequence[Address]:
        """Return the addresses, another one first each time. Raises OSError."""
        if asyncio.get_running_loop().time() >= self._until:
            if self._look_up is None:
                self._look_up = asyncio.create_task(self._look_them_up())
            await asyncio.shield(self._look_up)
        self._addresses.append(self._addresses.pop(0))
        return tuple(self._addresses)

    async def _look_them_up(self) -> None:
        """Set the addresses. A callback of the task would come too late for a caller between its end and that."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            self._addresses = [*found[-1:], *found[:-1]]
            self._until = loop.time() + _ADDRESSES_S
        finally:
            self._look_up = None
