"""The renderer interface: one renderer turns the batches of one client's stream into frames of a dialect."""

from typing import Final, Protocol

from gateway.live.batch import Batch
from shared.protocol.waiting import Waiting

#: One newline: after ids, a blank line makes several clients dispatch an empty event (measured, docs/protocol.md).
HEARTBEAT: Final = b": ping\n"


class Renderer(Protocol):
    """All methods return whole frames, or nothing if the dialect has no frame for it."""

    #: True if the dialect's clients reconnect and resume; a gateway that drains cuts only those connections.
    resumable: bool

    def queued(self, queue_position: int) -> bytes:
        """Frames for a stream that waits for a worker. ``queue_position``: 1 is next, 0 is unknown."""
        ...

    def waiting(self, waiting: Waiting) -> bytes:
        """Frames for a silence. They have no id, and no stream contains them."""
        ...

    def render(self, batch: Batch) -> bytes:
        """Frames for the next batch. Batches come in order, beginning after the client's cursor."""
        ...


def waiting_comment(waiting: Waiting) -> bytes:
    """Return a comment for dialects without an event for it: proxies and people see it, and clients ignore it."""
    return b": waiting %b\n" % waiting.state.encode()


class NullRenderer:
    """Null renderer for clients that wait for the end and then receive the answer as a whole."""

    resumable = False

    def queued(self, queue_position: int) -> bytes:
        return b""

    def waiting(self, waiting: Waiting) -> bytes:
        return b""

    def render(self, batch: Batch) -> bytes:
        return b""
