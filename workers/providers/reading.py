"""Reading one answer to its end: pieces of the body in, deltas out.

An answer ends with its end marker (``[DONE]``, ``message_stop``, ``done``) or with its body. After a finish reason,
silence and a broken connection end it too: some servers omit the marker and keep the connection open. A finish reason
by itself ends nothing, because usage and more text may follow it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from typing import Final, Protocol

import aiohttp
import httpx2

from shared.errors import ProviderError
from workers.providers.base import Delta
from workers.providers.errors import StreamedError
from workers.providers.framing import Splitter
from workers.providers.http_calls import NETWORK_ERRORS

#: A body read to its end leaves its connection for the next request; a server that does not end it is not waited for.
_DRAIN_S: Final = 0.1
_BROKEN: Final[tuple[type[Exception], ...]] = (TimeoutError, httpx2.HTTPError, aiohttp.ClientError, OSError)
_FAULTS: Final[tuple[type[Exception], ...]] = (StreamedError, ProviderError, *NETWORK_ERRORS)


class AnswerReader(Protocol):
    """Reader of one provider's pieces."""

    @property
    def is_whole(self) -> bool:
        """Whether the provider's own end marker has come."""
        ...

    @property
    def can_end(self) -> bool:
        """Whether a finish reason has come."""
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
    body: AsyncIterator[bytes], split: Splitter, reader: AnswerReader, end_grace_s: float
) -> AsyncGenerator[list[Delta], None]:
    """Yield the deltas that each read brought. ``end_grace_s``: silence after a finish reason that ends the answer.
    Raises what ``reader`` and ``body`` raise, after the deltas before it."""
    batches = split(body)
    while not reader.is_whole:
        try:
            pieces = await (_next_within(batches, end_grace_s) if reader.can_end else anext(batches, None))
        except _BROKEN:
            if not reader.can_end:
                raise
            break
        if pieces is None:
            break
        deltas, fault = _read(reader, pieces)
        if deltas:
            yield deltas
        if fault is not None:
            raise fault
    if last := list(reader.end()):
        yield last
    with suppress(*_BROKEN):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in body:
                pass


def _read(reader: AnswerReader, pieces: list[bytes]) -> tuple[list[Delta], Exception | None]:
    deltas: list[Delta] = []
    try:
        for piece in pieces:
            deltas += reader.take(piece)
    except _FAULTS as error:
        return deltas, error
    return deltas, None


async def _next_within(batches: AsyncGenerator[list[bytes], None], seconds: float) -> list[bytes] | None:
    async with asyncio.timeout(seconds):
        return await anext(batches, None)
