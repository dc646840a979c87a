"""State of the model, and the variant of the protocol with its faults."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

LENGTH: Final = 4  # events of one whole attempt
CAP: Final = 2

# Statuses of a stream, kinds of an event, modes of a worker, phases of a reader: small numbers and letters, since
# millions of states hold them.
QUEUED, RUNNING, ENDED = 0, 1, 2
PLAIN, RESET_START, FAILURE = 0, 1, 2
RUNS, RESTORES, LINGERS = "r", "m", "z"
OFF, ON, FINISHED, TOLD_LOST, TOLD_404, RESET_PENDING = 0, 1, 2, 3, 4, 5


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Variant of the protocol, and the number of faults of each kind. The defaults are the first draft."""

    #: ``next``: the state's epoch + 1. ``rising``: never reused, rising. ``random``: never reused, and above
    #: the epoch of the surviving state.
    epochs: Literal["next", "rising", "random"] = "next"
    #: Reply to an append of another epoch. ``equality``: SUPERSEDED. ``order``: SUPERSEDED or BEHIND.
    compare: Literal["equality", "order"] = "equality"
    #: Condition of a restore. ``guarded``: the state is missing, or has a lower epoch and has not ended.
    restore: Literal["missing", "blind", "guarded"] = "missing"
    #: Epoch of an ending by a process that does not hold the stream: the current one, or a fresh one.
    foreign_ending: Literal["same", "fresh"] = "same"
    #: Reason for a first-draft client to clear its text: the flag stored in `start`, or another epoch in an id.
    client: Literal["flag", "epoch"] = "epoch"
    reader: Literal["draft", "fixed"] = "draft"
    lingers: bool = False
    claims_missing: bool = False
    fails_when_lost: bool = False
    #: Writes carry the lease and are refused once it has passed.
    lease_in_writes: bool = False
    #: After a loss of data nothing is claimed until every live holder could renew.
    grace: bool = False
    #: A successor goes on with the log that it finds, under a new epoch (rule E13). ``may``: or begins anew.
    resumes: Literal["never", "may", "always"] = "never"
    #: A cursor of a continued epoch counts only up to the point of takeover.
    ends_at_takeover: bool = True
    max_attempts: int = 3
    highest_random_epoch: int = 6

    readers: int = 1
    readers_stay: bool = False
    empty: int = 0
    rollback: int = 0
    crash: int = 1
    pause: int = 1
    lost_reply: int = 1
    delay: int = 0
    #: The replica is never further behind than a worker lingers.
    lag_is_bounded: bool = False

    forbids_reset: bool = False
    forbids_older_writer: bool = False
    wants_one_answer: bool = False
    #: Kinds of violation that do not cut a branch, so that what lies behind them shows.
    ignore: tuple[str, ...] = ()
    max_states: int = 6_000_000


class Logged(NamedTuple):
    """Event in the log; its seq is its position. The number of the attempt stands for the content."""

    epoch: int
    attempt: int
    kind: int


class Entry(NamedTuple):
    """Event in the tail, or on its way to a reader."""

    epoch: int
    seq: int
    attempt: int
    kind: int


class Redis(NamedTuple):
    """Stream as Redis has it."""

    status: int
    epoch: int
    leased: bool
    attempts: int
    log: tuple[Logged, ...]
    tail: tuple[Entry, ...]


class Worker(NamedTuple):
    """Worker; without a mode it is idle. ``made``: events in memory. ``acked``: events known to be in the log.
    ``base``: the events of the log that it continues; they are the first of ``made``."""

    epoch: int
    attempt: int
    made: int
    acked: int
    mode: str
    leased: bool
    base: tuple[Logged, ...] = ()

    @property
    def is_idle(self) -> bool:
        return not self.mode


class Reader(NamedTuple):
    """Reader. ``shown``: the attempt of each event that it shows. ``finished``: it has seen a terminal event."""

    phase: int
    epoch: int
    seq: int
    shown: tuple[int, ...]
    finished: bool


class Request(NamedTuple):
    """Append (``A``) or restore (``R``) of events ``first`` to ``last`` of an attempt, which continues ``base``."""

    kind: str
    epoch: int
    attempt: int
    first: int
    last: int
    base: tuple[Logged, ...] = ()

    def event(self, seq: int) -> Logged:
        return self.base[seq - 1] if seq <= len(self.base) else Logged(self.epoch, self.attempt, PLAIN)


class Budget(NamedTuple):
    """Faults that may still happen. ``grace``: nothing may be claimed now."""

    empty: int
    rollback: int
    crash: int
    pause: int
    lost_reply: int
    delay: int
    grace: bool


class State(NamedTuple):
    """State of the whole system. ``bases``: for each attempt so far, the attempts of the events that it continues.
    ``used``: epochs given out so far. ``seen``: events that readers were shown, as (epoch, seq, attempt, is a
    failure)."""

    redis: Redis | None
    replica: Redis | Literal["none"] | None
    workers: tuple[Worker, ...]
    readers: tuple[Reader, ...]
    late: Request | None
    budget: Budget
    bases: tuple[tuple[int, ...], ...]
    used: tuple[int, ...]
    seen: tuple[tuple[int, int, int, bool], ...]

    @property
    def attempts(self) -> int:
        """Number of the newest attempt."""
        return len(self.bases)

    def answer(self, attempt: int, length: int) -> tuple[int, ...]:
        """Attempts of the first events of the answer that this attempt gives."""
        base = self.bases[attempt - 1]
        return (base + (attempt,) * LENGTH)[:length]


class Violation(NamedTuple):
    kind: str
    text: str


class Step(NamedTuple):
    label: str
    state: State
    is_fault: bool
    violation: Violation | None


class Reply(NamedTuple):
    code: str
    n: int


IDLE: Final = Worker(0, 0, 0, 0, "", False)


def capped(tail: tuple[Entry, ...]) -> tuple[Entry, ...]:
    return tail[-CAP:]
