"""What a dialect has to be able to do. One renderer serves one client."""

from typing import Protocol

from gateway.run import Run


class Renderer(Protocol):
    """Whole frames, or nothing where the dialect has no word for it."""

    #: Whether its clients come back when they are cut, and go on: a gateway that leaves cuts those, and no others.
    resumable: bool

    def queued(self, place: int) -> bytes:
        """Nobody has begun yet; ``place`` in the queue, 1 for the next, 0 where that is not known."""
        ...

    def render(self, run: Run) -> bytes:
        """The runs of a stream come in order, from the client's cursor on."""
        ...
