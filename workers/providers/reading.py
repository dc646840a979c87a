"""Reading one answer to its end: pieces of the body in, deltas out.

An answer ends with its end marker (``[DONE]``, ``message_stop``, ``done``) or with its body. After a finish reason,
silence and a broken connection end it too: some servers omit the marker and keep the connection open. A finish reason
by itself ends nothing, because usage and more text may follow it. Silence means that no bytes come; an event that
comes slowly is not silence.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from typing import Final, Protocol

import aiohttp
import httpx2

from shared.errors import ProviderError
from workers.providers.base import Delta, Sink, SinkError
from workers.providers.errors import StreamedError
from workers.providers.framing import MAX_PIECE_BYTES, Cutter
from workers.providers.http_calls import NETWORK_ERRORS
from workers.providers.response_body import ResponseBody

#: Keep-alives after a finish reason prolong the grace at most so many times.
_LONGEST_GRACE: Final = 5
#: A timer that fires later than this shows that the process stood still, so that bytes may be waiting.
_STOOD_STILL_S: Final = 0.05
#: A body read to its end leaves its connection for the next request; a server that does not end it is not waited for.
_DRAIN_S: Final = 0.1
#: Bytes without any output: a reader may hold all of them until there is some.
_MOST_UNSEEN_BYTES: Final = 4 * MAX_PIECE_BYTES
BROKEN: Final[tuple[type[Exception], ...]] = (TimeoutError, httpx2.HTTPError, aiohttp.ClientError, OSError)
_FAULTS: Final[tuple[type[Exception], ...]] = (StreamedError, ProviderError, *NETWORK_ERRORS)


class AnswerReader(Protocol):
    """Reader of one provider's pieces."""

    @property
    def is_whole(self) -> bool:
        """True once the provider's own end marker has come."""
        ...

    @property
    def can_end(self) -> bool:
        """True once a finish reason has come."""
        ...

    def take(self, piece: bytes) -> Iterable[Delta]:
        """The deltas of one piece. Raises :class:`StreamedError`, :class:`ProviderError`, and ValueError for a piece
        that is not the protocol."""
        ...

    def end(self) -> Iterable[Delta]:
        """The last deltas; called once, after the last piece. Raises :class:`ProviderError` if the answer is not
        whole."""
        ...


async def deltas_of(
    body: ResponseBody,
    cutter: Cutter,
    reader: AnswerReader,
    end_grace_s: float,
    sink: Sink | None = None,
    *,
    yields_empty: bool = False,
) -> AsyncGenerator[list[Delta], None]:
    """Yield the deltas that each read brought, except those that ``sink`` took. ``end_grace_s``: silence after a
    finish reason that ends the answer. ``yields_empty``: also for a read that brought none. Errors of ``reader`` and
    ``body`` are raised after the deltas before them."""
    reads, pieces, grace = aiter(body.reads), _Pieces(cutter, reader), _Grace(end_grace_s)
    has_ended = False
    while not (has_ended or reader.is_whole):
        try:
            read = await (grace.next(reads) if reader.can_end else anext(reads, None))
        except BROKEN:
            if not reader.can_end:
                raise
            break
        has_ended = read is None
        if (deltas := pieces.deltas_of(read)) or yields_empty:
            yield deltas
            grace.ends_at = None if deltas else grace.ends_at
        pieces.raise_fault()
        if body.direct is not None and sink is not None and not pieces.may_end:
            await body.direct.hand_over(sink, pieces.take)
            pieces.raise_fault()
    if last := list(reader.end()):
        yield last
    with suppress(*BROKEN):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in reads:
                pass


class _Pieces:
    """Pieces of one body, through its reader."""

    def __init__(self, cutter: Cutter, reader: AnswerReader) -> None:
        self._cutter = cutter
        self._reader = reader
        self._unseen = 0
        self._fault: Exception | None = None

    @property
    def may_end(self) -> bool:
        """True once the answer may end, or has failed."""
        return self._reader.can_end or self._reader.is_whole or self._fault is not None

    def take(self, read: bytes, sink: Sink) -> bool:
        """Take a read without a task. False: the answer may end, or has failed. Raises :class:`SinkError`."""
        if deltas := self.deltas_of(read):
            try:
                sink.take(deltas)
            except Exception as error:
                raise SinkError(error) from error
        reader = self._reader  # `not self.may_end`, without a call
        return not (reader.can_end or reader.is_whole or self._fault is not None)

    def deltas_of(self, read: bytes | None) -> list[Delta]:
        """Return the deltas of one read, or of the end of the body. A fault is raised after them."""
        deltas: list[Delta] = []
        try:
            pieces = self._cutter.end() if read is None else self._cutter.feed(read)
            for piece in pieces:
                deltas += self._reader.take(piece)
                if self._reader.is_whole:
                    break
            self._unseen = 0 if deltas else self._unseen + sum(map(len, pieces))
            if self._unseen > _MOST_UNSEEN_BYTES:
                raise ValueError("too much without output")
        except _FAULTS as error:
            self._fault = error
        return deltas

    def raise_fault(self) -> None:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault


class _Grace:
    """Time that an answer with a finish reason still waits for more. Other bytes than output prolong it, at most
    until ``ends_at``; None: it begins anew with the next wait."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self.ends_at: float | None = None

    async def next(self, reads: AsyncIterator[bytes]) -> bytes | None:
        """Return the next read, None at the end of the body. Raises TimeoutError."""
        if self.ends_at is None:
            self.ends_at = self._loop.time() + self._seconds * _LONGEST_GRACE
        async with asyncio.timeout(None) as scope:
            self._set_timer(scope)
            try:
                return await anext(reads, None)
            finally:
                self._timer.cancel()

    def _set_timer(self, scope: asyncio.Timeout) -> None:
        due = min(self._loop.time() + self._seconds, self.ends_at or 0)
        self._timer = self._loop.call_at(due, self._on_timer, scope, due)

    def _on_timer(self, scope: asyncio.Timeout, due: float) -> None:
        now = self._loop.time()
        if now - due > _STOOD_STILL_S:
            self.ends_at = now + self._seconds
            self._set_timer(scope)
        else:
            scope.reschedule(now)
