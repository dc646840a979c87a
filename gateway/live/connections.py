"""Limit of live connections: requests in progress on routes that stream, counted by principal on this gateway."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway import metrics
from shared.errors import TooManyConnections


class Place:
    """The place of one request among those of its principal. Empty until :meth:`take`."""

    def __init__(self, connections: "Connections") -> None:
        self._connections = connections
        self._principal: str | None = None

    def take(self, principal: str) -> None:
        """Count this request. Raises :class:`TooManyConnections` if its principal has as many as it may have."""
        self._connections.add(principal)
        self._principal = principal

    def give_back(self) -> None:
        if self._principal is not None:
            self._connections.remove(self._principal)
            self._principal = None


class Connections:
    """Live connections by principal. ``most``: limit of each; 0 = unlimited."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[str, int] = {}

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Provide a place, and give it back at the end."""
        place = Place(self)
        try:
            yield place
        finally:
            place.give_back()

    def add(self, principal: str) -> None:
        count = self._counts.get(principal, 0)
        if self._most and count >= self._most:
            metrics.REFUSALS.labels(TooManyConnections.code).inc()
            raise TooManyConnections(f"limit of {self._most} open connections reached; close one, or try again later")
        self._counts[principal] = count + 1

    def remove(self, principal: str) -> None:
        self._counts[principal] -= 1
        if not self._counts[principal]:
            del self._counts[principal]
