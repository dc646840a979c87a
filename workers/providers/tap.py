"""Takes the reads of a response where its connection receives them, so that none of them wakes a task.

The request and the head of its response are the HTTP client's; aiohttp parses the body as before. A body that is
compressed, or that another client reads, comes through the task alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import httpx2
from aiohttp.client_proto import ResponseHandler

from workers.providers.base import Sink

#: Bytes of one read, as httpx2's transport has them.
_MOST_BYTES: Final = 16 * 1024


#: Hands the deltas of a read to a sink. Returns False if the task has to go on.
Take = Callable[[bytes, Sink], bool]


@dataclass(frozen=True, slots=True)
class ResponseBody:
    """ResponseBody of a response. ``response``: aiohttp's, if its reads can be taken from the connection."""

    reads: AsyncIterator[bytes]
    response: aiohttp.ClientResponse | None = None

    @classmethod
    def of(cls, response: httpx2.Response) -> "ResponseBody":
        # The SDKs' transport has no public access to aiohttp's response.
        stream = getattr(response.stream, "_stream", None)
        inner = getattr(stream, "_aiohttp_response", None)
        is_known = isinstance(inner, aiohttp.ClientResponse)
        return cls(response.aiter_bytes(), inner if is_known else None)


@contextmanager
def tapped(body: ResponseBody, sink: Sink | None, take: Take) -> Iterator["Tap | None"]:
    """Tap the connection of a response; None if that is not possible."""
    tap = None if sink is None or body.response is None else _tap_of(body.response, sink, take)
    try:
        yield tap
    finally:
        if tap is not None:
            tap.close()


def _tap_of(response: aiohttp.ClientResponse, sink: Sink, take: Take) -> "Tap | None":
    connection = response.connection
    if connection is None or response.headers.get("content-encoding", "identity") != "identity":
        return None
    transport, protocol = connection.transport, connection.protocol
    if transport is None or protocol is None or transport.is_closing() or transport.get_protocol() is not protocol:
        return None
    return Tap(transport, protocol, response.content, sink, take)


class _TappedReader(aiohttp.StreamReader):
    """aiohttp's reader of a body while its tap waits: the tap gets what comes, as long as nothing is buffered."""

    __slots__ = ()
    _protocol: "Tap"  # type: ignore[assignment]  # while it waits

    @property
    def has_buffered(self) -> bool:
        return self._size > 0

    def feed_data(self, data: bytes, size: int = 0) -> bool:
        if self._size == 0 and self._protocol.offer(data):
            return False
        return super().feed_data(data, size)

    def end_http_chunk_receiving(self) -> None:
        """Note nothing: ends of chunks are for readers of whole chunks."""


class Tap(asyncio.Protocol):
    """Protocol in front of aiohttp's own, until the end of a body. Reads are taken only while the task waits here;
    at any other time they stay in aiohttp's buffer, which pauses the transport when it is full."""

    def __init__(
        self,
        transport: asyncio.Transport,
        inner: ResponseHandler,
        content: aiohttp.StreamReader,
        sink: Sink,
        take: Take,
    ) -> None:
        self._transport = transport
        self._inner = inner
        self._content = content
        self._sink = sink
        self._take_read = take
        self._offered: list[bytes] = []
        self._offered_bytes = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        transport.set_protocol(self)
        content.on_eof(self.close)  # before another request gets the connection

    def close(self) -> None:
        """Give the connection back to aiohttp, unless it is closed: then it has no protocol to set, and all that
        still comes is passed on."""
        if not self._is_closed:
            self._is_closed = True
            if not self._transport.is_closing():
                self._transport.set_protocol(self._inner)

    async def wait(self) -> None:
        """Return when the task has to go on: for a read that is not taken, or for the end of the body."""
        content = self._content
        if self._take_buffered():
            self._waiter = asyncio.get_running_loop().create_future()
            content.__class__, content._protocol = _TappedReader, self  # type: ignore[assignment]
            try:
                await self._waiter
            finally:
                content.__class__, content._protocol = aiohttp.StreamReader, self._inner
                self._waiter = None

    # --- called by aiohttp's reader

    def offer(self, data: bytes) -> bool:
        """Keep ``data`` for the sink, unless the sink is closed, or has enough for once."""
        if not self._offered and (self._waiter is None or self._waiter.done() or not self._sink.is_open):
            return False
        self._offered_bytes += len(data)
        if self._offered_bytes > _MOST_BYTES:
            return False
        self._offered.append(data)
        return True

    def pause_reading(self) -> None:
        self._is_paused = True
        self._inner.pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume if reading is paused: aiohttp would parse an empty read otherwise."""
        if self._is_paused:
            self._is_paused = False
            self._inner.resume_reading(resume_parser)

    # --- called by the loop

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)
        self._wake()

    def eof_received(self) -> None:
        self._inner.eof_received()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        self._inner.connection_lost(exc)
        self._wake()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _wake(self) -> None:
        """Take what has come. Wake the task if it has to go on."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        offered = b"".join(self._offered)
        self._offered.clear()
        self._offered_bytes = 0
        try:
            if not self._take(offered):
                waiter.set_result(None)
        except Exception as error:  # noqa: BLE001  the task raises it
            waiter.set_exception(error)

    def _take(self, offered: bytes) -> bool:
        """Take what has come. False: the task has to go on."""
        content = self._content
        if offered and not self._take_read(offered, self._sink):
            return False
        if content.exception() is None and isinstance(content, _TappedReader) and not content.has_buffered:
            return not content.is_eof()
        return self._take_buffered()

    def _take_buffered(self) -> bool:
        content, sink = self._content, self._sink
        while sink.is_open and content.exception() is None:
            read = content.read_nowait(_MOST_BYTES)
            if read and not self._take_read(read, sink):
                return False
            if len(read) < _MOST_BYTES:  # there is no more
                return not content.is_eof()
        return False
