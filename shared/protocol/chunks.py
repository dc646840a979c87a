"""Compressed chunks: the log of what is not in the tail any more (rule S14).

A chunk holds consecutive events as they are stored, with a newline between them. No event contains one, since JSON
escapes it.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

#: A chunk ends with its 256th event, or with the one that makes it this large: a page of the log needs few chunks.
CHUNK_EVENTS: Final = 256
CHUNK_BYTES: Final = 64 * 1024
#: Events beyond these bytes do not stay in the tail.
TAIL_BYTES: Final = 1024 * 1024
#: Higher levels save 6 % of the bytes, for twice the time (bench/NOTES.md).
_LEVEL: Final = 1
#: Redis' own limit of an event.
_MOST_EVENT_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chunks:
    """Consecutive events of a log. ``ends``: the last seq in each chunk."""

    ends: list[int]
    data: list[bytes]

    @property
    def ends_text(self) -> str:
        """The state's field ``chunks``."""
        return " ".join(map(str, self.ends))


def compress(events: Sequence[bytes], before: int = 0) -> Chunks:
    """Return the chunks of events that follow the first ``before`` ones of a log."""
    chunks, first, size = Chunks([], []), 0, 0
    for end, event in enumerate(events, 1):
        size += len(event)
        if size >= CHUNK_BYTES or end - first == CHUNK_EVENTS or end == len(events):
            chunks.ends.append(before + end)
            chunks.data.append(zlib.compress(b"\n".join(events[first:end]), _LEVEL))
            first, size = end, 0
    return chunks


def decompress(chunk: bytes) -> list[bytes]:
    """Return the events of a chunk. Raises :class:`ValueError`."""
    inflater = zlib.decompressobj()
    try:
        joined = inflater.decompress(chunk, CHUNK_BYTES + _MOST_EVENT_BYTES)
    except zlib.error as error:
        raise ValueError("chunk: cannot be decompressed") from error
    if not inflater.eof:
        raise ValueError("chunk: cut off, or too large")
    return joined.split(b"\n")


def leaving(cap: int, events: Sequence[bytes], more: int = 0) -> int:
    """Return how many of the first events have to go into chunks before the tail has these and ``more`` others: 0 if
    all fit, else so many that it has room again for a while."""
    total, room = sum(map(len, events)), TAIL_BYTES
    if len(events) + more <= cap and total <= room:
        return 0
    kept, left = max(0, min(cap - more, cap - min(CHUNK_EVENTS, max(1, cap // 4)))), room // 2
    for count, event in enumerate(events):
        if len(events) - count <= kept and total <= left:
            return count
        total -= len(event)
    return len(events)


def take(
    chunks: Iterable[bytes], skipped: int, following: Iterable[bytes] = (), *, most_events: int, most_bytes: int
) -> list[bytes]:
    """Return the events of chunks and those ``following`` them, after the first ``skipped`` ones, until there are
    ``most_events`` or at least ``most_bytes``. Chunks beyond that stay compressed. Raises as :func:`decompress`
    does."""
    events: list[bytes] = []
    size = 0
    everything = chain((event for chunk in chunks for event in decompress(chunk)), following)
    for event in islice(everything, skipped, skipped + most_events):
        events.append(event)
        size += len(event)
        if size >= most_bytes:
            break
    return events


def length_of(ends_text: str) -> int:
    """Return the number of events in a log with these chunks."""
    return int(ends_text.rpartition(" ")[2])
