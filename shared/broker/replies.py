"""What the scripts answer, and how Redis puts it."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Final

import msgspec

from shared.protocol.ids import EventId
from shared.protocol.lifecycle import Status


class Code(StrEnum):
    """The answers of the scripts that workers call, design §3."""

    OK = "OK"
    FULL = "FULL"
    GAP = "GAP"
    BEHIND = "BEHIND"
    MISSING = "MISSING"
    CLOSED = "CLOSED"
    SUPERSEDED = "SUPERSEDED"
    WATCHED = "WATCHED"


_CODES: Final = {code.encode(): code for code in Code}


class WriteReply(msgspec.Struct, frozen=True):
    """``last_seq``: the last event in the log. ``signal``: why to stop, '' if not; with CLOSED, how it ended.
    ``epoch``: the state's."""

    code: Code
    last_seq: int
    signal: str
    watched: bool
    epoch: int


@dataclass(frozen=True, slots=True)
class Used:
    """Of an account's limits. ``requests`` and ``tokens`` are of this minute; after their ``reset_s`` none are."""

    requests: int
    requests_reset_s: float
    tokens: int
    tokens_reset_s: float
    tokens_today: int
    streams: int


@dataclass(frozen=True, slots=True)
class Created:
    """``place``: in the queue, 1 for the next. ``used``: None where the account has no limits."""

    place: int
    used: Used | None


@dataclass(frozen=True, slots=True)
class Known:
    """The idempotency key already stands for this stream."""

    stream_id: str
    body_hash: str


@dataclass(frozen=True, slots=True)
class Limited:
    """Nothing was made: ``limit`` would be broken, and not any more after ``wait_s``."""

    limit: str
    wait_s: float
    used: Used


@dataclass(frozen=True, slots=True)
class Full:
    """Nothing was made: so many streams wait already."""

    waiting: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """``readable``: events in the log, of whichever epoch. ``fields``: the whole state."""

    epoch: int
    attempt: int
    readable: int
    signal: str
    fields: dict[str, bytes]


class Refused(StrEnum):
    """Why a claim or a cancel did nothing."""

    MISSING = "MISSING"
    CLOSED = "CLOSED"
    HELD = "HELD"
    PARKED = "PARKED"
    UNHELD = "UNHELD"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where a stream's log stands."""

    status: Status
    epoch: int
    length: int

    @property
    def at(self) -> EventId:
        """The last event in the log."""
        return EventId(self.epoch, self.length)


@dataclass(frozen=True, slots=True)
class LogPage:
    """Events ``first``, ``first + 1``, … of ``epoch``, out of ``length`` in the log."""

    status: Status
    principal: str
    epoch: int
    length: int
    first: int
    events: list[bytes]

    @property
    def complete(self) -> bool:
        return self.first + len(self.events) > self.length


@dataclass(frozen=True, slots=True)
class Gone:
    """The content is no more; ``deleted`` tells a delete from an end of retention."""

    principal: str
    deleted: bool


class Lost(Enum):
    """There is no state, but Redis had trouble so lately that a worker may still bring it back."""

    MAYBE = auto()


@dataclass(frozen=True, slots=True)
class Due:
    """Streams of one bucket to look at, as of ``now_ms`` by Redis' clock."""

    now_ms: int
    stream_ids: list[str]


def parse_write(raw: list[Any]) -> WriteReply:
    return WriteReply(_CODES[raw[0]], raw[1], raw[2].decode(), bool(raw[3]), raw[4])


def parse_created(raw: list[Any]) -> Created | Known | Limited | Full:
    match raw[0]:
        case b"KNOWN":
            return Known(raw[1].decode(), raw[2].decode())
        case b"LIMITED":
            return Limited(raw[1].decode(), raw[2] / 1000, _used(raw[3:]))
        case b"FULL":
            return Full(raw[1])
        case b"EXISTS":  # said twice, since the answer was lost
            return Created(0, None)
    return Created(raw[1], _used(raw[2:]) if raw[2:] else None)


def _used(raw: list[int]) -> Used:
    return Used(raw[0], raw[1] / 1000, raw[2], raw[3] / 1000, raw[4], raw[5])


def parse_unparked(raw: list[bytes]) -> list[str]:
    return [stream_id.decode() for stream_id in raw[::2]]


def parse_claim(raw: list[Any]) -> Claimed | Refused:
    if raw[0] != b"CLAIMED":
        return Refused(raw[0].decode())
    fields = dict(zip((name.decode() for name in raw[5][::2]), raw[5][1::2], strict=True))
    return Claimed(raw[1], raw[2], raw[3], raw[4].decode(), fields)


def parse_refused(raw: list[bytes]) -> Refused:
    return Refused(raw[0].decode())


def parse_deleted(raw: list[bytes]) -> bool:
    return raw[0] == b"DELETED"


def parse_log_position(raw: list[Any]) -> LogPosition | None:
    return LogPosition(Status(raw[0].decode()), raw[1], raw[2]) if raw else None


def parse_due(raw: list[Any]) -> Due:
    return Due(raw[0], [stream_id.decode() for stream_id in raw[1:]])


def parse_page(raw: list[Any]) -> LogPage | Gone | Lost | None:
    if not raw:
        return None
    if raw == [b""]:
        return Lost.MAYBE
    if len(raw) == 1:
        kind, _, principal = raw[0].decode().partition(" ")
        return Gone(principal, deleted=kind == "deleted")
    return LogPage(Status(raw[0].decode()), raw[1].decode(), raw[2], raw[3], raw[4], raw[5:])
