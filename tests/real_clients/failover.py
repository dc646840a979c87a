"""A load balancer of TCP connections. It stays with a gateway until that refuses a connection."""

import asyncio
from collections.abc import Sequence
from typing import Self


class Failover:
    """``async with Failover(ports) as balancer:``. ``at`` is the index of the gateway of new connections."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.at = 0
        self._ports = ports
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            writer.transport.abort()
            return
        there, back = upstream
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        except OSError:
            pass  # one end is gone
        finally:
            back.transport.abort()
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._ports:
            try:
                return await asyncio.open_connection("127.0.0.1", self._ports[self.at])
            except OSError:
                self.at = (self.at + 1) % len(self._ports)
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of ``reader``. A reset ends both ways."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
