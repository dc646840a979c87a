"""The part of HTTP/1.1 that an SDK needs. It notices a peer that disconnects or stops reading."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast

from tests.fakes.answer import Call

#: Small, so that a peer that does not read is soon noticed.
WRITE_BUFFER_BYTES: Final = 16 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    #: Without the question mark.
    query: str = ""


class Connection(asyncio.Protocol):
    """Serves one request after another with ``handle``. When the peer disconnects, the handler's task is cancelled
    and its ``call`` is marked closed, both at once."""

    def __init__(
        self, handle: Callable[["Connection", Request], Awaitable[None]], connections: set["Connection"]
    ) -> None:
        self.call: Call | None = None
        self._handle = handle
        self._connections = connections
        self._received = bytearray()
        self._more = asyncio.Event()
        self._paused = False

    # --- asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not an assertion: uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._more.set()

    def eof_received(self) -> bool:
        self._gone()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._gone()

    def pause_writing(self) -> None:
        self._paused = True
        if self.call is not None:
            self.call.stall()

    def resume_writing(self) -> None:
        self._paused = False
        if self.call is not None:
            self.call.flow()

    # --- the handler calls these

    async def respond(
        self, status: int, body: bytes, content_type: str = "application/json", *, retry_after: str | None = None
    ) -> None:
        length = f"content-length: {len(body)}"
        wait = f"\r\nretry-after: {retry_after}" if retry_after is not None else ""
        self._transport.write(_head(status, content_type, length + wait) + body)

    def begin_chunks(self, content_type: str, status: int = 200) -> None:
        self._transport.write(_head(status, content_type, "transfer-encoding: chunked"))

    async def chunk(self, call: Call, data: bytes) -> None:
        """Send a chunk and return when the socket is ready for more."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        call.sent_bytes += len(data)
        if self._paused:
            await call.flowing()

    def end_chunks(self) -> None:
        self._transport.write(b"0\r\n\r\n")

    async def reset(self) -> None:
        """Send RST, once the kernel has everything that was written."""
        call = self.call
        self._transport.set_write_buffer_limits(high=0)
        if call is not None and self._paused:
            await call.flowing()
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.done()
        self._transport.abort()

    def done(self) -> None:
        """End the call from the server's side."""
        if self.call is not None:
            self.call.close(by_client=False)
            self.call = None

    async def abort(self) -> None:
        self.done()
        self._transport.abort()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        while not self._transport.is_closing():
            try:
                request = await self._request()
            except ValueError:  # not HTTP
                self._transport.abort()
                return
            await self._handle(self, request)

    async def _request(self) -> Request:
        head = await self._take_until_blank_line()
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            await self._wait_for_more()
        body = bytes(self._received[:length])
        del self._received[:length]
        path, _, query = path.partition("?")
        return Request(method, path, headers, body, query)

    async def _take_until_blank_line(self) -> bytes:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            await self._wait_for_more()
        head = bytes(self._received[:end])
        del self._received[: end + 4]
        return head

    async def _wait_for_more(self) -> None:
        self._more.clear()
        await self._more.wait()

    def _gone(self) -> None:
        if self.call is not None:
            self.call.close(by_client=True)
            self.call = None
        self._task.cancel()


def _head(status: int, content_type: str, framing: str) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Overloaded"
    return f"HTTP/1.1 {status} {phrase}\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode()
