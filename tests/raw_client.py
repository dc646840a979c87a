"""A client that sends any bytes, also invalid ones."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Return the code of an error in Headrace's own form."""
        error: dict[str, Any] = json.loads(self.body)["error"]
        assert set(error) == {"code", "message", "retryable"}
        return str(error["code"])


class RawConnection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send each piece by itself. A peer that has closed the connection is no failure."""
        for piece in pieces:
            try:
                self._writer.write(piece)
                await self._writer.drain()
            except ConnectionError:
                return

    def end(self) -> None:
        """Close the sending side; responses can still be read. A peer that has closed already is no failure."""
        with suppress(OSError):
            self._writer.write_eof()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and fields of the next response."""
        async with asyncio.timeout(_TIMEOUT_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [line.partition(": ") for line in lines]
        return int(status), {name.lower(): value for name, _, value in fields}

    async def answer(self) -> RawAnswer:
        """Read the next response, which must have a length."""
        status, headers = await self.head()
        async with asyncio.timeout(_TIMEOUT_S):
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return RawAnswer(status, headers, body)

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(_TIMEOUT_S):
            return await self._reader.readuntil(end)

    async def read(self, count: int) -> bytes:
        """Read ``count`` bytes."""
        async with asyncio.timeout(_TIMEOUT_S):
            return await self._reader.readexactly(count)

    async def rest(self) -> bytes:
        """Read everything until the peer closes."""
        received = bytearray()
        async with asyncio.timeout(_TIMEOUT_S):
            try:
                while piece := await self._reader.read(65536):
                    received += piece
            except ConnectionError:
                pass
        return bytes(received)


class _Reader(asyncio.StreamReader):
    """Reads what came before a reset, which asyncio's own reader drops."""

    def set_exception(self, _: BaseException) -> None:
        self.feed_eof()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawConnection]:
    loop, reader = asyncio.get_running_loop(), _Reader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", port, ssl=tls)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.transport.abort()
