"""The reasons for a silence, as clients learn them in ``event: waiting`` (docs/protocol.md)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: Reported by Redis for a stream whose holder has written to it. It is no reason for a silence, unless clients were
#: told one before: then it is over, and they wait for the model.
MORE: Final = "more"


class Awaited(StrEnum):
    """The next thing that has to happen before a stream goes on.

    ``QUEUED``: a worker takes the stream. ``TAKEN``: its worker calls the model. ``MODEL``: the model says its first
    word. ``WORKER_LOST``: another worker takes it over, because the lease of its worker has ended.
    """

    QUEUED = "queued"
    TAKEN = "taken"
    MODEL = "model"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True, slots=True)
class Waiting:
    """State of a stream that waits. ``position``: in the queue, 1 is next; None if it is unknown or in no queue.
    ``workers``: number of running workers; None if it is unknown."""

    state: Awaited
    position: int | None = None
    workers: int | None = None
