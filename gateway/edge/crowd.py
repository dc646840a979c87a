"""Limit of the connections of this gateway, whoever opened them.

Each connection takes a file descriptor, and a process without free ones can neither accept clients nor reconnect to
Redis. At the limit, the connection that has waited longest for a request is closed for a new one, so that
connections on which nothing is requested keep no client out.
"""

from typing import Final, Protocol

from shared.file_descriptors import raise_limit

#: Descriptors that are not for clients: Redis, logs, the page's files.
_RESERVED: Final = 128


class Connection(Protocol):
    """A connection that can be closed."""

    def shutdown(self) -> None: ...


class Crowd:
    """All connections of a gateway. ``most``: their limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._idle: dict[Connection, None] = {}  # awaiting a request, the longest waiting first

    def make_room_for(self, connection: Connection, count: int) -> bool:
        """Add a new connection, with which there are ``count``. Return False if there is no room for it."""
        if count > self._most:
            longest_idle = next(iter(self._idle), None)
            if longest_idle is None:
                return False
            del self._idle[longest_idle]
            longest_idle.shutdown()
        self.is_idle(connection)
        return True

    def is_idle(self, connection: Connection) -> None:
        """Note that a connection awaits a request."""
        self._idle[connection] = None

    def is_busy(self, connection: Connection) -> None:
        """Note that a connection has a request, or is closed."""
        self._idle.pop(connection, None)


def most_connections() -> int:
    """Raise the limit of file descriptors as far as this process may. Return the number of connections that fit."""
    return max(1, raise_limit() - _RESERVED)
