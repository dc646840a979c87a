"""Batch of consecutive events of one stream, on its way to clients."""

from collections.abc import Sequence

from shared.protocol.ids import EventId

#: An event's id as clients receive it, and the event as Redis stores it. The id is ``b""`` for an event that no
#: stream contains.
StoredEvent = tuple[bytes, bytes]


class Batch:
    """Consecutive events up to and including ``last``.

    ``reset``: a client must discard the part of the stream that it shows. ``ended``: the last event is `done`.
    ``native``: cached frames of the native dialect, shared by all clients that receive this batch.
    """

    __slots__ = ("ended", "events", "last", "native", "reset")

    def __init__(
        self, events: Sequence[StoredEvent], last: EventId, *, reset: bool = False, ended: bool = False
    ) -> None:
        self.events = events
        self.last = last
        self.reset = reset
        self.ended = ended
        self.native: bytes | None = None
