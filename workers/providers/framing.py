"""How providers cut their answers into pieces, as server-sent events or as lines, taken off the body read by read.

The SDKs would do it, one event at a time and for 15 µs each; a read often brings several (bench/NOTES.md).
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

#: A body read to its end leaves its connection for the next request; a server that does not end it is not waited for.
_DRAIN_S: Final = 0.1
_FAULTS: Final[tuple[type[Exception], ...]] = (StreamedError, ProviderError, *NETWORK_ERRORS)
_PREFIX: Final = b"data:"
#: One event or line; what is longer is no answer.
_MOST_BYTES: Final = 64 * 1024 * 1024

T = TypeVar("T")
#: Gives what each read completed; no list is empty.
Cut = Callable[[AsyncIterable[bytes]], AsyncGenerator[list[bytes], None]]


class Answer(Protocol):
    """Understands one provider's pieces. ``is_whole``: its own end marker has come."""

    is_whole: bool

    def take(self, data: bytes) -> Iterable[Delta]: ...


async def deltas_of(body: AsyncIterator[bytes], cut: Cut, answer: Answer) -> AsyncGenerator[list[Delta], None]:
    """The deltas that each read brought. Raises what ``answer.take`` raises, after the deltas before it."""
    async for pieces in cut(body):
        deltas: list[Delta] = []
        fault: Exception | None = None
        try:
            for piece in pieces:
                deltas += answer.take(piece)
        except _FAULTS as error:
            fault = error
        if deltas:
            yield deltas
        if fault is not None:
            raise fault
        if answer.is_whole:
            break
    with suppress(TimeoutError, httpx2.HTTPError, aiohttp.ClientError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in body:
                pass


async def lines_of(body: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Lines, without blank ones; what stands after the last line break is one too."""
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
    """The ``data`` of the events that each read completed; other fields and comments are dropped. Lines end with LF
    or CRLF. What stands after the last blank line counts as an event too. Linear also for one event in many reads."""
    rest = bytearray()
    held = b""  # a CR whose LF may be in the next read
    async for read in body:
        if held or b"\r" in read:
            text = held + read
            held = b"\r" if text.endswith(b"\r") else b""
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
    """Raises ValueError. Half of a surrogate pair, which some servers send at the end of a delta, is let through:
    ``workers/writing/surrogates.py`` joins the halves."""
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(data), decoder.type)


def _check_size(rest: bytearray) -> None:
    if len(rest) > _MOST_BYTES:
        raise ValueError("one piece of an answer is too large")


def _data(block: bytes) -> bytes:
    if b"\n" not in block:
        return block[len(_PREFIX) :].strip() if block.startswith(_PREFIX) else b""
    return b"\n".join(line[len(_PREFIX) :].strip() for line in block.split(b"\n") if line.startswith(_PREFIX))
