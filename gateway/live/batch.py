"""A piece of a stream on its way to a client."""

from collections.abc import Sequence

from shared.protocol.ids import EventId

#: An event's id as it is sent, and the event as it is stored. What never stood in a stream has the id ``b""``.
Numbered = tuple[bytes, bytes]


class Batch:
    """Events that follow each other, up to ``last``. ``reset``: who has shown something of the stream has to throw it
    away first. ``ended``: `done` is among them. ``native``: as rendered for the first who asked, for all others."""

    __slots__ = ("ended", "events", "last", "native", "reset")

    def __init__(
        self, events: Sequence[Numbered], last: EventId, *, reset: bool = False, ended: bool = False
    ) -> None:
        self.events = events
        self.last = last
        self.reset = reset
        self.ended = ended
        self.native: bytes | None = None
