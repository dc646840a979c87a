"""One response of a provider over a connection of our own: its head, and its body read by read.

Reads go to a sink where the connection receives them, so that none of them wakes a task. While the sink is closed, a
task reads them; unread bytes beyond a limit pause the connection.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

from workers.providers.base import Sink

if TYPE_CHECKING:
    from workers.providers.connection import Connection

#: Bytes of one read, as httpx2's transport has them.
_MOST_BYTES: Final = 16 * 1024
#: Unread bytes that pause the connection. Also the limit of a head, and of everything else between two pieces of a
#: body: responses with status 1xx, extensions of chunks, trailers.
_MOST_UNREAD_BYTES: Final = 64 * 1024

#: Hands the deltas of a read to a sink. Returns False if the task has to go on.
Take = Callable[[bytes, Sink], bool]


class DisconnectedError(ConnectionError):
    """The server closed the connection before its response."""


class TruncatedError(ConnectionError):
    """The server closed the connection within its response."""


class InvalidResponseError(ConnectionError):
    """Not HTTP, or beyond a limit."""


class Response(AsyncIterator[bytes]):
    """A response, from its request until its last byte. Iterate over it, or call :meth:`hand_over`."""

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers = CIMultiDict[str]()
        #: The connection can serve another request.
        self.can_keep = False
        #: Nothing more will come, because the response is complete or because of ``_error``.
        self.is_over = False
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # the parser calls it
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        # Deviations of servers that do no harm in a response, as aiohttp lets them through.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._error: Exception | None = None
        self._is_paused = False
        self._unread_bytes = 0  # as received, since everything was read
        self._waiter: asyncio.Future[None] | None = None
        self._receiver: tuple[Sink, Take] | None = None

    async def wait_for_head(self) -> None:
        """Return once status and headers have come. Raises OSError."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def __anext__(self) -> bytes:
        """Return the next read. Raises OSError for a body that is not whole, after all that came of it."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self.is_over:
                raise StopAsyncIteration
            await self._wait()
        return self._next_read()

    async def hand_over(self, sink: Sink, take: Take) -> None:
        """Hand all reads to ``take`` as they come. Return when the task has to go on: for a read that is not taken,
        or for the end of the body. Raises what ``take`` raises."""
        if self._hands_over(sink, take):
            self._receiver = sink, take
            try:
                await self._wait()
            finally:
                self._receiver = None

    # --- called by the connection

    def receive(self, data: bytes) -> None:
        if self.is_over:
            self.can_keep = False  # nothing was asked for
            return
        self._unread_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.can_keep = False
            self._fail(InvalidResponseError())
        if self._waiter is not None:
            self._wake()
        if self._unread_bytes > _MOST_UNREAD_BYTES:
            self._limit_unread()

    def end(self, error: Exception | None) -> None:
        """Note the end of the connection. Some bodies end with it."""
        if self.status and error is None and self._ends_with_connection():
            self.is_over = True
        elif isinstance(error, ConnectionError):  # others have codes of their own, such as ETIMEDOUT
            self._fail(error)
        else:
            self._fail(TruncatedError() if self.status else DisconnectedError())
        self.can_keep = False
        self._wake()

    def release(self) -> bool:
        """Forget the connection. Returns True if this response has paused it."""
        self._fail(DisconnectedError())
        del self._parser  # it refers to the response
        was_paused, self._is_paused = self._is_paused, False
        return was_paused

    # --- called by the parser

    def on_message_begin(self) -> None:
        if self.is_over:
            raise ValueError("another response")
        self.headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # others are trailers
            self.headers.add(name.decode(errors="surrogateescape"), value.decode(errors="surrogateescape"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status

    def on_message_complete(self) -> None:
        if self.status:
            self.is_over = True
            self.can_keep = self._parser.should_keep_alive()

    # --- internal

    def _ends_with_connection(self) -> bool:
        codings = self.headers.getall("transfer-encoding", [])
        if codings:
            return not codings[-1].lower().rstrip().endswith("chunked")
        return "content-length" not in self.headers

    def _fail(self, error: Exception) -> None:
        """Note an error, unless the response is over."""
        if not self.is_over:
            self.is_over, self._error = True, error

    def _limit_unread(self) -> None:
        """Pause until everything is read. Something without a body never is."""
        if self._pieces:
            self._is_paused = True
            self._connection.pause_reading()
        else:
            self._fail(InvalidResponseError())
            self._wake()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        """Hand over what has come. Wake the task if it has to go on."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        try:
            if self._receiver is None or not self._hands_over(*self._receiver):
                waiter.set_result(None)
        except Exception as error:  # noqa: BLE001  the task raises it
            waiter.set_exception(error)

    def _hands_over(self, sink: Sink, take: Take) -> bool:
        """Hand over what is unread. False: the task has to go on."""
        pieces = self._pieces
        while pieces:
            if not sink.is_open:
                return False
            if len(pieces) == 1 and self._unread_bytes <= _MOST_BYTES and not self._is_paused:  # nearly always
                read, self._unread_bytes = pieces.pop(), 0
            else:
                read = self._next_read()
            if not take(read, sink):
                return False
        return not self.is_over

    def _next_read(self) -> bytes:
        pieces = self._pieces
        read = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if len(read) > _MOST_BYTES:
            pieces.append(read[_MOST_BYTES:])
            return read[:_MOST_BYTES]
        self._unread_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._connection.resume_reading()
        return read
