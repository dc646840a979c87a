"""Splits response bodies into server-sent events or lines, read by read.

The SDKs do the same one event at a time, for 15 µs each; a read often brings several events (bench/NOTES.md).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import aiohttp
import httpx2
import msgspec

from shared.errors import ProviderError
from workers.providers.base import Delta
from workers.providers.errors import StreamedError
from workers.providers.http_calls import NETWORK_ERRORS

#: A body read to its end frees its connection for the next request. A server that does not end it is abandoned.
_DRAIN_S: Final = 0.1
_FAULTS: Final[tuple[type[Exception], ...]] = (StreamedError, ProviderError, *NETWORK_ERRORS)
_PREFIX: Final = b"data:"
#: Limit of one event or line.
_MAX_BYTES: Final = 64 * 1024 * 1024

T = TypeVar("T")
#: Yields the pieces that each read completed; no list is empty.
Splitter = Callable[[AsyncIterable[bytes]], AsyncGenerator[list[bytes], None]]


class Answer(Protocol):
    """Parser of one provider's pieces. ``is_whole``: the provider's end marker has arrived."""

    is_whole: bool

    def take(self, data: bytes) -> Iterable[Delta]: ...


async def deltas_of(body: AsyncIterator[bytes], split: Splitter, answer: Answer) -> AsyncGenerator[list[Delta], None]:
    """Yield the deltas of each read. Errors of ``answer.take`` are raised after the deltas before them."""
    async for pieces in split(body):
        deltas: list[Delta] = []
        failure: Exception | None = None
        try:
            for piece in pieces:
                deltas += answer.take(piece)
        except _FAULTS as error:
            failure = error
        if deltas:
            yield deltas
        if failure is not None:
            raise failure
        if answer.is_whole:
            break
    with suppress(TimeoutError, httpx2.HTTPError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in body:
                pass


async def lines_of(body: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Yield the lines that are not blank; the text after the last line break is a line too."""
    rest = bytearray()
    async for read in body:
        rest += read
        if b"\n" in read:
            *lines, last = bytes(rest).split(b"\n")
            rest[:] = last
            if found := [line for line in lines if line.strip()]:
                yield found
        _check_size(rest)
    if rest.strip():
        yield [bytes(rest)]


async def data_of(body: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Yield the ``data`` of the events that each read completed, without other fields and comments. Lines end with LF
    or CRLF. The text after the last blank line is an event too. The cost is linear, even for one event in many
    reads."""
    rest = bytearray()
    pending_cr = b""  # a CR whose LF may come with the next read
    async for read in body:
        if pending_cr or b"\r" in read:
            text = pending_cr + read
            pending_cr = b"\r" if text.endswith(b"\r") else b""
            read = text.removesuffix(b"\r").replace(b"\r\n", b"\n")  # noqa: PLW2901
        if rest:
            searched = len(rest) - 1
            rest += read
            if rest.find(b"\n\n", searched) < 0:
                _check_size(rest)
                continue
            read = bytes(rest)  # noqa: PLW2901
        *blocks, last = read.split(b"\n\n")
        rest[:] = last
        if found := [data for block in blocks if (data := _data(block))]:
            yield found
    if data := _data(bytes(rest)):
        yield [data]


def decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode one piece. Raises ValueError. Accepts half of a surrogate pair, which some servers send at the end of a
    delta: ``workers/writing/surrogates.py`` joins the halves."""
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(data), decoder.type)


def _check_size(rest: bytearray) -> None:
    if len(rest) > _MAX_BYTES:
        raise ValueError("a piece of the answer is too large")


def _data(block: bytes) -> bytes:
    if b"\n" not in block:
        return block[len(_PREFIX) :].strip() if block.startswith(_PREFIX) else b""
    return b"\n".join(line[len(_PREFIX) :].strip() for line in block.split(b"\n") if line.startswith(_PREFIX))
