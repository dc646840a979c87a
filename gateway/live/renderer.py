"""The renderer interface: one renderer turns the batches of one client's stream into frames of a dialect."""

from typing import Protocol

from gateway.live.batch import Batch


class Renderer(Protocol):
    """Both methods return whole frames, or nothing if the dialect has no frame for it."""

    #: True if the dialect's clients reconnect and resume; a gateway that drains cuts only those connections.
    resumable: bool

    def queued(self, queue_position: int) -> bytes:
        """Frames for a stream that waits for a worker. ``queue_position``: 1 is next, 0 is unknown."""
        ...

    def render(self, batch: Batch) -> bytes:
        """Frames for the next batch. Batches come in order, beginning after the client's cursor."""
        ...


class NullRenderer:
    """Null renderer for clients that wait for the end and then receive the answer as a whole."""

    resumable = False

    def queued(self, queue_position: int) -> bytes:
        return b""

    def render(self, batch: Batch) -> bytes:
        return b""
