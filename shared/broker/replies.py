"""Replies of the scripts, and their parsing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Any, Final

import msgspec

from shared.errors import BrokerUnavailable
from shared.protocol.ids import EventId
from shared.protocol.ledger import LedgerEntry, decode_ledger
from shared.protocol.lifecycle import TRANSITIONS, Status, Step
from shared.protocol.lineage import Lineage


class IllegalStatus(BrokerUnavailable):
    """A reply has a status that the table of transitions excludes: Redis has data that this version cannot read."""

    def __init__(self, script: str, status: str) -> None:
        super().__init__()
        self.script = script
        self.status = status


class Code(StrEnum):
    """Codes in the replies to a writer (rule A1)."""

    OK = "OK"
    FULL = "FULL"
    GAP = "GAP"
    BEHIND = "BEHIND"
    MISSING = "MISSING"
    CLOSED = "CLOSED"
    SUPERSEDED = "SUPERSEDED"
    WATCHED = "WATCHED"
    NOTED = "NOTED"
    STORED = "STORED"
    UNSTORED = "UNSTORED"
    PACKED = "PACKED"
    UNPACKED = "UNPACKED"


_CODES: Final = {code.encode(): code for code in Code}


class WriteReply(msgspec.Struct, frozen=True):
    """Reply to a writer. ``last_seq``: the last event in the log; with PACKED, in its chunks. ``signal``: reason to
    stop, '' to go on; with CLOSED, the reason of the ending. ``epoch``: the epoch in the state. ``size`` and
    ``expires``: the stream's bytes and their expiry in ms, for the desk; 0 in most replies."""

    code: Code
    last_seq: int
    signal: str
    watched: bool
    epoch: int
    size: int = 0
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Owed:
    """An ending that the desk has not settled. ``tokens``: used; ``size``: the bytes; ``ended``: in ms; ``cost``: in
    nanos, or ``?``."""

    status: str
    reason: str
    tokens: int
    size: int
    ended: int
    cost: str = "0"

    @classmethod
    def of(cls, status: bytes, reason: bytes | None, owed: bytes, ended: bytes) -> "Owed":
        """Parse the fields of a state."""
        tokens, size, cost = owed.split()
        return cls(status.decode(), (reason or b"").decode(), int(tokens), int(size), int(ended), cost.decode())

    @property
    def text(self) -> str:
        """The field ``owed`` of the state."""
        return f"{self.tokens} {self.size} {self.cost}"


@dataclass(frozen=True, slots=True)
class Removed:
    """A stream's content was deleted or dropped. ``digest``: of its idempotency key, or empty. ``ledger``: its calls
    that the desk has not counted. ``is_unused``: no worker ever had it."""

    account: str
    digest: str
    owed: Owed | None = None
    ledger: Sequence[LedgerEntry] = ()
    is_unused: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The idempotency key already belongs to this stream. ``status``: empty if it is gone."""

    stream_id: str
    body_hash: str
    status: str


@dataclass(frozen=True, slots=True)
class Unstored:
    """Nothing was created: pieces of the request are missing."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The state of a stream was created. ``size``: its bytes; 0 if an earlier call created it."""

    size: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The stream was claimed. ``readable``: number of events in the log, of any epoch. ``fields``: the whole
    state."""

    epoch: int
    attempt: int
    readable: int
    signal: str
    fields: dict[str, bytes]


class Refused(StrEnum):
    """Reasons for which a take, a claim or a cancel changed nothing. UNKNOWN: the desk does not have the stream."""

    MISSING = "MISSING"
    CLOSED = "CLOSED"
    HELD = "HELD"
    UNKNOWN = "UNKNOWN"
    UNHELD = "UNHELD"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """The status of a stream and the length of its log. ``awaited``: what comes before the next event (a value of
    :class:`shared.protocol.waiting.Awaited`, or ``MORE``); '' if nothing is known."""

    status: Status
    epoch: int
    length: int
    awaited: str = ""

    @property
    def at(self) -> EventId:
        """The last event in the log."""
        return EventId(self.epoch, self.length)


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of the log: events ``first``, ``first + 1``, … of ``epoch`` and its ``lineage``, out of ``length`` in
    the log."""

    status: Status
    principal: str
    epoch: int
    lineage: Lineage
    length: int
    first: int
    events: list[bytes]

    @property
    def complete(self) -> bool:
        return self.first + len(self.events) > self.length

    @property
    def end(self) -> EventId:
        """The last event in the log."""
        return self.id_of(self.length)

    def id_of(self, seq: int) -> EventId:
        """Return the id of an event of the log."""
        return EventId(self.lineage.epoch_of(seq, self.epoch), seq)

    def follows(self, cursor: EventId) -> bool:
        """Return True if the log has the event that ``cursor`` names, or is of its epoch (rule R2)."""
        return self.id_of(cursor.seq) == cursor


@dataclass(frozen=True, slots=True)
class Gone:
    """The stream's content is gone: deleted by its owner, dropped to free storage, or past its retention."""

    principal: str
    deleted: bool
    dropped: bool = False


class Lost(Enum):
    """There is no state, but after a recent outage of Redis a worker may still restore it."""

    MAYBE = auto()


@dataclass(frozen=True, slots=True)
class Due:
    """Streams that the sweep must examine, at ``now_ms`` by Redis' clock."""

    now_ms: int
    stream_ids: list[str]


_CLAIMED: Final = str(TRANSITIONS[Status.RUNNING][Step.CLAIM]).encode()
_STATUSES: Final = {status.encode(): status for status in Status}


def parse_status(script: str, raw: bytes) -> Status:
    """Parse a stream's status. Raises :class:`IllegalStatus`."""
    try:
        return _STATUSES[raw]
    except KeyError:
        raise IllegalStatus(script, raw.decode(errors="replace")) from None


def parse_write(raw: list[Any]) -> WriteReply:
    return WriteReply(_CODES[raw[0]], raw[1], raw[2].decode(), bool(raw[3]), raw[4])


def parse_counted(raw: list[Any]) -> WriteReply:
    """Parse a reply that may have what the desk counts."""
    return WriteReply(_CODES[raw[0]], raw[1], raw[2].decode(), bool(raw[3]), *raw[4:])


def parse_begun(raw: list[Any]) -> Begun | Known | Unstored:
    match raw[0]:
        case b"KNOWN":
            return Known(raw[1].decode(), raw[2].decode(), raw[3].decode())
        case b"UNSTORED":
            return Unstored()
        case b"EXISTS":  # a repeated call, because the first reply was lost
            return Begun(0)
    return Begun(raw[1])


def parse_claim(raw: list[Any]) -> Claimed | Refused:
    if raw[0] != b"CLAIMED":
        return Refused(raw[0].decode())
    fields = dict(zip((name.decode() for name in raw[5][::2]), raw[5][1::2], strict=True))
    if fields["status"] != _CLAIMED:
        raise IllegalStatus("claim", fields["status"].decode())
    return Claimed(raw[1], raw[2], raw[3], raw[4].decode(), fields)


def parse_refused(raw: list[bytes]) -> Refused:
    return Refused(raw[0].decode())


def parse_removed(raw: list[Any]) -> Removed | None:
    """Parse the reply of `delete` or `drop`; None if nothing was removed."""
    match raw:
        case [_, account, digest]:
            return Removed(account.decode(), digest.decode())
        case [_, account, digest, status, reason, owed, ended, ledger, key_id, is_unused]:
            ending = Owed.of(status, reason, owed, ended) if owed else None
            calls = decode_ledger(ledger, key_id.decode())
            return Removed(account.decode(), digest.decode(), ending, calls, bool(is_unused))
    return None


def parse_log_position(raw: list[Any]) -> LogPosition | None:
    return LogPosition(parse_status("acknowledge", raw[0]), raw[1], raw[2], raw[3].decode()) if raw else None


def parse_due(raw: list[Any]) -> Due:
    return Due(raw[0], [stream_id.decode() for stream_id in raw[1:]])


def parse_page(raw: list[Any], open_page: Callable[..., list[bytes]]) -> LogPage | Gone | Lost | None:
    """Parse a page. ``open_page`` opens its chunks, from the number of events before it on, and its later events."""
    if not raw:
        return None
    if raw == [b""]:
        return Lost.MAYBE
    if len(raw) == 1:
        kind, _, principal = raw[0].decode().partition(" ")
        return Gone(principal, deleted=kind == "deleted", dropped=kind == "dropped")
    lineage = Lineage(raw[3].decode())
    first, before, after_chunks = raw[5], raw[6], 8 + raw[7]
    events = open_page(raw[8:after_chunks], first - 1 - before, raw[after_chunks:])
    return LogPage(parse_status("read", raw[0]), raw[1].decode(), raw[2], lineage, raw[4], first, events)
