"""Simulates a network that loses connections, or the rest of an answer."""

import asyncio
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """A TCP proxy between the browser and a gateway. :meth:`cut` aborts its connections. ``passes``: number of bytes
    that still reach the client; the rest is lost, however fast the gateway is. None: all."""

    def __init__(self, upstream_url: str) -> None:
        self.upstream = urlsplit(upstream_url)
        self.refused = 0
        #: New connections get a 502, as from a load balancer during a deploy.
        self.is_deploying = False
        #: New connections are aborted.
        self.is_away = False
        self.passes: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server:
            self._server.close()
        self.cut()
        while self._writers:
            await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> int:
        """Abort all connections and return their number."""
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        return len(writers)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_away:
            writer.transport.abort()
            return
        if self.is_deploying:
            self.refused += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer, is_answer=True))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65_536):
                writer.write(self._passing(data) if is_answer else data)
                await writer.drain()
        except OSError:
            pass  # cut
        finally:
            self._writers.discard(writer)
            writer.close()

    def _passing(self, data: bytes) -> bytes:
        if self.passes is None:
            return data
        passing = data[: self.passes]
        self.passes -= len(passing)
        return passing
