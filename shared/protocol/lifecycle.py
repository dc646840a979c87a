"""Lifecycle of a stream: the statuses, and the table of transitions that the scripts may make.

``queued`` waits for a worker, ``running`` is or was held by one, and the other three are terminal. The table is
enforced. Each script checks the status before its first write. Tests compare every script, the random walks and the
chaos suite with it. A reply with an excluded status is logged, counted and treated as an outage. The expiry of a
state, and a loss of data in Redis, are not steps.
"""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Step(StrEnum):
    CREATE = "create"
    FORGET = "forget"  # a stream that was refused
    CLAIM = "claim"  # a worker takes the stream; also again, after the last one's lease
    APPEND = "append"
    RENEW = "renew"
    RELEASE = "release"  # a worker hands the stream over
    RESTORE = "restore"  # a worker writes again what Redis lost
    COMPLETE = "complete"
    CANCEL = "cancel"
    FAIL = "fail"
    DELETE = "delete"
    DROP = "drop"  # to free storage


#: Status before → step → status after; None means that there is no state.
TRANSITIONS: Final[dict[Status | None, dict[Step, Status | None]]] = {
    None: {Step.CREATE: Status.QUEUED, Step.RESTORE: Status.RUNNING},
    # Ending a queued stream needs a claim too: every writer holds a fresh epoch.
    Status.QUEUED: {Step.CLAIM: Status.RUNNING, Step.RESTORE: Status.RUNNING, Step.FORGET: None, Step.DELETE: None},
    Status.RUNNING: {
        Step.CLAIM: Status.RUNNING,
        Step.APPEND: Status.RUNNING,
        Step.RENEW: Status.RUNNING,
        Step.RELEASE: Status.RUNNING,
        Step.RESTORE: Status.RUNNING,
        Step.COMPLETE: Status.COMPLETED,
        Step.CANCEL: Status.CANCELLED,
        Step.FAIL: Status.FAILED,
        Step.DELETE: None,
    },
    Status.COMPLETED: {Step.DELETE: None, Step.DROP: None},
    Status.CANCELLED: {Step.DELETE: None, Step.DROP: None},
    Status.FAILED: {Step.DELETE: None, Step.DROP: None},
}

#: Steps of the scripts that make any; all other scripts leave the status unchanged.
STEPS: Final[dict[str, frozenset[Step]]] = {
    "begin": frozenset({Step.CREATE}),
    "forget": frozenset({Step.FORGET}),
    "claim": frozenset({Step.CLAIM}),
    "append": frozenset({Step.APPEND}),
    "renew": frozenset({Step.RENEW}),
    "release": frozenset({Step.RELEASE}),
    "restore": frozenset({Step.RESTORE}),
    "finish": frozenset({Step.COMPLETE, Step.CANCEL, Step.FAIL}),
    "delete": frozenset({Step.DELETE}),
    "drop": frozenset({Step.DROP}),
}

TERMINAL: Final = frozenset(status for status in Status if set(TRANSITIONS[status].values()) == {None})
ACTIVE: Final = frozenset(Status) - TERMINAL

#: finish_reason of ``done`` → the status it leaves behind.
STATUS_AFTER: Final[dict[str, Status]] = {
    "stop": Status.COMPLETED,
    "length": Status.COMPLETED,
    "tool_calls": Status.COMPLETED,
    "content_filter": Status.COMPLETED,
    "cancelled": Status.CANCELLED,
    "error": Status.FAILED,
}


def is_allowed(script: str, before: Status | None, after: Status | None) -> bool:
    """Return True if one run of ``script`` may take a stream from ``before`` to ``after``."""
    steps = STEPS.get(script, frozenset())
    return before == after or any(TRANSITIONS[before].get(step, before) == after for step in steps)


def is_reachable(before: Status | None, after: Status | None) -> bool:
    """Return True if steps may take a stream from ``before`` to ``after``, be they several. A delete is final."""
    found, new = {before}, [before]
    while new:
        for status in TRANSITIONS[new.pop()].values():
            if status not in found:
                found.add(status)
                new += [status] if status else []
    return after in found


def froms_and_tos(script: str) -> tuple[list[Status | None], list[Status | None]]:
    """Return the statuses in which ``script`` writes and those that it leaves, each in the order of the table."""
    rows = [
        (before, row[step]) for before, row in TRANSITIONS.items() for step in STEPS.get(script, ()) if step in row
    ]
    before, after = {before for before, _ in rows}, {after for _, after in rows}
    return [each for each in TRANSITIONS if each in before], [each for each in TRANSITIONS if each in after]
