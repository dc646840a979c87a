"""What a provider's event stream says, taken off its HTTP response read by read.

The SDKs would do it, one event at a time and for 15 µs each; a read often brings several (bench/NOTES.md).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import suppress
from typing import Final, Protocol, TypeVar

import httpx2
import msgspec

from workers.providers.base import Delta
from workers.providers.errors import StreamedError
from workers.providers.exchange import TROUBLE

#: A body read to its end leaves its connection for the next request; a server that does not end it is not waited for.
_DRAIN_S: Final = 0.1
_FAULTS: Final[tuple[type[Exception], ...]] = (StreamedError, *TROUBLE)
_PREFIX: Final = b"data:"


T = TypeVar("T")


class Answer(Protocol):
    """Understands one provider's events. ``is_whole``: its own end marker has come."""

    is_whole: bool

    def take(self, data: bytes) -> Iterable[Delta]: ...


async def deltas_of(response: httpx2.Response, answer: Answer) -> AsyncGenerator[list[Delta], None]:
    """The deltas that each read brought. Raises what ``answer.take`` raises, after the deltas before it."""
    body = response.aiter_bytes()
    async for events in data_of(body):
        deltas: list[Delta] = []
        fault: Exception | None = None
        try:
            for data in events:
                deltas += answer.take(data)
        except _FAULTS as error:
            fault = error
        if deltas:
            yield deltas
        if fault is not None:
            raise fault
        if answer.is_whole:
            break
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in body:
                pass


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
    ``workers/gathering.py`` joins the halves."""
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(data), decoder.type)


def _data(block: bytes) -> bytes:
    if b"\n" not in block:
        return block[len(_PREFIX) :].strip() if block.startswith(_PREFIX) else b""
    return b"\n".join(line[len(_PREFIX) :].strip() for line in block.split(b"\n") if line.startswith(_PREFIX))
