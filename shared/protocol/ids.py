"""Stream ids, event ids and cursors: parse and format.

A stream id is two hex digits of bucket and 128 random bits, e.g. ``a3`` + 32 hex digits. The bucket is the Redis
Cluster hash tag, so that all keys of a stream share a slot.
"""

import hashlib
import re
import secrets
from typing import Final, NamedTuple

from shared.errors import InvalidLastEventId

BUCKETS: Final = 256
_STREAM_ID: Final = re.compile(r"[0-9a-f]{34}\Z", re.ASCII)
_EVENT_ID: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,15})\Z", re.ASCII)
_FROM_THE_START: Final = frozenset({"", "0", "0-0", "-1"})


class EventId(NamedTuple):
    """Event id ``<epoch>-<seq>``: SSE id, Redis Stream entry id and cursor at once. Readers compare epochs for
    equality only. ``EventId(0, 0)`` is the cursor before everything."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


START: Final = EventId(0, 0)


def new_stream_id(idempotency_digest: str | None = None) -> str:
    """Return a new id. With a digest, it has the digest's bucket, so that one script can write both."""
    bucket = idempotency_digest[:2] if idempotency_digest else secrets.token_hex(1)
    return bucket + secrets.token_hex(16)


def is_stream_id(text: str) -> bool:
    return _STREAM_ID.match(text) is not None


def bucket_of(stream_id: str) -> str:
    """Return the bucket, two hex digits."""
    return stream_id[:2]


def idempotency_digest(principal: str, key: str) -> str:
    """Hash (principal, key), so that neither is stored."""
    return hashlib.sha256(f"{principal}\x00{key}".encode()).hexdigest()


def format_event_id(epoch: int, seq: int) -> bytes:
    return b"%d-%d" % (epoch, seq)


def parse_cursor(text: str | None) -> EventId:
    """Parse a client's cursor. Absent, empty, ``0``, ``0-0`` and ``-1`` mean the start. Raises
    :class:`InvalidLastEventId`."""
    if text is None or text in _FROM_THE_START:
        return START
    return parse_event_id(text)


def parse_event_id(text: str) -> EventId:
    match = _EVENT_ID.match(text)
    if match is None:
        raise InvalidLastEventId(
            "Last-Event-ID: not an event id; send the id of the last event received, such as 3-42"
        )
    return EventId(int(match[1]), int(match[2]))
