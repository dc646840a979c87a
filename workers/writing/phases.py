"""States of a stream's writer, and its results."""

from enum import Enum, StrEnum, auto

from shared.broker.ending import ABANDONED


class StopReason(StrEnum):
    """Why reading the provider stopped before its answer was complete."""

    CANCELLED = "cancelled"  # by a client
    ABANDONED = ABANDONED  # no reader for too long; the ending is written already, if there was output
    HANDOVER = "handover"  # this worker drains: another one takes the stream
    LOST = "lost"  # as Ended.LOST
    STORED_BYTES = "stored_bytes"  # the principal is far above its limit of stored bytes

    @classmethod
    def _missing_(cls, value: object) -> "StopReason":
        return cls.CANCELLED  # a reason that a newer gateway gave


class Ended(StrEnum):
    """How the writing of a stream ended."""

    WRITTEN = "written"
    WATCHED = "watched"  # an abandoned stream has a reader again: go on
    HANDED_OVER = "handed_over"  # released, for another worker to take
    LOST = "lost"  # another worker holds the stream, or it was deleted or ended


class Phase(Enum):
    """State of a writer. ``StreamWriter.next_call`` maps it to the next call.

    ========= ======= ==================================================================================
    phase     sends   leaves it
    ========= ======= ==================================================================================
    WRITING   append  on a FULL reply; on an ending; on a handover; to RESTORING if Redis lost events
    FULL      -       to WRITING on a notification of room, or after ``ROOM_POLL_S``; otherwise as WRITING
    RESTORING restore to ENDING if there is an ending, else to WRITING
    ENDING    finish  to CLOSED; to WRITING if an abandoned stream has a reader again
    RELEASING release to RELEASED when the release is sent
    RELEASED  release to CLOSED on its reply; without a reply it is sent again
    CLOSED    -       to ENDING or RESTORING if Redis lost the ending or the stream
    ========= ======= ==================================================================================
    """

    WRITING = auto()
    FULL = auto()
    RESTORING = auto()
    ENDING = auto()
    RELEASING = auto()  # a call may be in flight: the next reply belongs to it
    RELEASED = auto()
    CLOSED = auto()
