"""Replies of the scripts of the desk, and their parsing."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from shared.broker.replies import Refused
from shared.budgets import Kind


@dataclass(frozen=True, slots=True)
class Used:
    """Use of an account's limits. ``requests`` and ``tokens`` are of this minute, and 0 after their ``reset_s``."""

    requests: int
    requests_reset_s: float
    tokens: int
    tokens_reset_s: float
    tokens_today: int
    streams: int


@dataclass(frozen=True, slots=True)
class Created:
    """The stream was created. ``queue_position`` is 1 for the next, and 0 if it waits no more. ``used``: None if the
    account has no limits. ``warnings``: budgets that are nearly spent, each once in its period."""

    queue_position: int
    used: Used | None
    warnings: tuple["BudgetName", ...] = ()


@dataclass(frozen=True, slots=True)
class Limited:
    """Nothing was created: the request would exceed ``limit``, and would not after ``wait_s``."""

    limit: str
    wait_s: float
    used: Used


class BudgetName(NamedTuple):
    """One limit of one budget. ``account``: the id of an API key, or ``server``. ``period``: as
    :func:`shared.budgets.period_at` names it. ``kind``: nanos or tokens."""

    account: str
    period: str
    kind: Kind

    @classmethod
    def of(cls, word: bytes) -> "BudgetName":
        account, period, kind = word.decode().split(":")
        return cls(account, period, "nanos" if kind == "nanos" else "tokens")


@dataclass(frozen=True, slots=True)
class OverBudget:
    """Nothing was created: with what is ``spent`` and ``reserved``, the request would exceed a budget."""

    budget: BudgetName
    spent: int
    reserved: int
    warnings: tuple[BudgetName, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """Nothing was created: the account has ``stored`` bytes, and with the stream's ``needed`` they would exceed its
    limit."""

    stored: int
    needed: int


@dataclass(frozen=True, slots=True)
class Full:
    """Nothing was created: the queue is full with this number of streams."""

    waiting: int


@dataclass(frozen=True, slots=True)
class SourceGone:
    """Nothing was created: an answer that the stream was made from is being dropped."""

    stream_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing was counted: the stream has ended or is gone."""


Admitted = Created | Limited | OverBudget | Stored | Full | SourceGone | Ended


class Held(StrEnum):
    """Replies to :meth:`DeskScripts.hold`. FAR: the account is far above its limit of stored bytes, and the stream
    has to stop. UNKNOWN: the desk does not have the stream. OTHER: another worker holds it, or it is gone."""

    OK = "OK"
    FAR = "FAR"
    UNKNOWN = "UNKNOWN"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Settled:
    """The desk has forgotten a stream. ``freed``: bytes given back. ``forgotten``: streams that were removed so long
    ago that nothing of them stays, with the digests of their idempotency keys, which may be empty."""

    freed: int
    forgotten: list[tuple[str, str]]


class Requeued(StrEnum):
    """Replies to :meth:`DeskScripts.requeue`."""

    QUEUED = "QUEUED"
    KNOWN = "KNOWN"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class TargetFull:
    """A call would exceed this limit of its provider, and would not after ``wait_s``."""

    limit: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Taken:
    """A worker has a stream's place, and its ``lanes``, one a line."""

    lanes: str


@dataclass(frozen=True, slots=True)
class OtherLanes:
    """Nothing was changed: the stream has these ``lanes``, one a line, which the call must name; and a settlement the
    accounts of its ``budgets``, separated by spaces."""

    lanes: str
    budgets: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """All providers of the stream's targets are at a limit. ``is_new``: it was not parked before."""

    provider: str
    is_new: bool


def parse_admitted(raw: list[Any]) -> Admitted:
    match raw[0]:
        case b"QUEUED":
            return _created(raw)
        case b"LIMITED":
            return Limited(raw[1].decode(), raw[2] / 1000, _used(raw[3:]))
        case b"BUDGET":
            return OverBudget(BudgetName.of(raw[1]), int(raw[2]), int(raw[3]), _warnings(raw[4:]))
        case b"STORED":
            return Stored(int(raw[1]), int(raw[2]))
        case b"FULL":
            return Full(int(raw[1]))
    return SourceGone(raw[1].decode()) if raw[0] == b"SOURCE" else Ended()


def _created(raw: list[Any]) -> Created:
    used = [each for each in raw[2:] if isinstance(each, int)]
    return Created(raw[1], _used(used) if used else None, _warnings(raw[2 + len(used) :]))


def parse_requeued(raw: list[bytes]) -> Requeued:
    return Requeued(raw[0].decode())


def _warnings(raw: list[bytes]) -> tuple[BudgetName, ...]:
    return tuple(map(BudgetName.of, raw))


def _used(raw: list[int]) -> Used:
    return Used(raw[0], raw[1] / 1000, raw[2], raw[3] / 1000, raw[4], raw[5])


def parse_slot(raw: list[Any]) -> TargetFull | OtherLanes | str | None:
    match raw[0]:
        case b"LANES":
            return OtherLanes(raw[1].decode())
        case b"OK":
            return str(raw[1].decode())
        case b"FULL":
            return TargetFull(raw[1].decode(), raw[2] / 1000)
    return None


def parse_left(raw: list[Any]) -> bool | OtherLanes:
    return OtherLanes(raw[1].decode()) if raw[0] == b"LANES" else raw[0] == b"LEFT"


def parse_taken(raw: list[Any]) -> Taken | Parked | OtherLanes | Refused:
    match raw[0]:
        case b"LANES":
            return OtherLanes(raw[1].decode())
        case b"TAKEN":
            return Taken(raw[1].decode())
        case b"PARKED":
            return Parked(raw[2].decode(), bool(raw[1]))
    return Refused(raw[0].decode())


def parse_held(raw: list[bytes]) -> Held | OtherLanes:
    return OtherLanes(raw[1].decode()) if raw[0] == b"LANES" else Held(raw[0].decode())


def parse_settled(raw: list[Any]) -> Settled | OtherLanes:
    if raw[0] == b"LANES":
        return OtherLanes(raw[1].decode(), raw[2].decode())
    parts = (each.decode().partition(" ") for each in raw[1:])
    return Settled(raw[0], [(stream_id, digest) for stream_id, _, digest in parts])


def parse_ids(raw: list[bytes]) -> list[str]:
    return [stream_id.decode() for stream_id in raw]
