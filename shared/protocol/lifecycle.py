"""The life of a stream as a table. What is not in it cannot happen.

``queued`` waits for a worker; ``running`` is or was held by one; the other three are for ever. The scripts know
only whether a status is active; every terminal status is given to them from here.
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
    CLAIM = "claim"  # a worker takes the stream; also again, after the last one's lease
    COMPLETE = "complete"
    CANCEL = "cancel"
    FAIL = "fail"


TRANSITIONS: Final[dict[Status, dict[Step, Status]]] = {
    # Ending a queued stream goes through a claim too: nobody writes without a fresh epoch of his own.
    Status.QUEUED: {Step.CLAIM: Status.RUNNING},
    Status.RUNNING: {
        Step.CLAIM: Status.RUNNING,
        Step.COMPLETE: Status.COMPLETED,
        Step.CANCEL: Status.CANCELLED,
        Step.FAIL: Status.FAILED,
    },
    Status.COMPLETED: {},
    Status.CANCELLED: {},
    Status.FAILED: {},
}

TERMINAL: Final = frozenset(status for status, steps in TRANSITIONS.items() if not steps)
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
