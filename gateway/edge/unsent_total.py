"""Limit of the bytes that all connections together hold for peers that do not take them.

Each connection has a deadline (``unsent.py``), but until then a thousand slow readers of whole answers would hold
gigabytes. Above the limit the connections that hold most are reset; their clients may ask again.
"""

import asyncio
from typing import Final, Protocol

#: Connections with fewer bytes are not counted: streams have a small buffer each, and there are many.
_COUNTED_FROM: Final = 256 * 1024
MOST_BYTES: Final = 64 * 1024 * 1024


class Connection(Protocol):
    transport: asyncio.Transport


class UnsentTotal:
    """The connections of a gateway whose peers take nothing at the moment."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._full: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        """Note that a connection's buffer is full, and reset those that hold most if all together hold too much."""
        if connection.transport.get_write_buffer_size() < _COUNTED_FROM:
            return
        self._full[connection] = None
        sizes = {each: each.transport.get_write_buffer_size() for each in self._full}
        excess = sum(sizes.values()) - self._most_bytes
        for each in sorted(sizes, key=sizes.__getitem__, reverse=True):
            if excess <= 0:
                break
            excess -= sizes[each]
            self.remove(each)
            each.transport.abort()

    def remove(self, connection: Connection) -> None:
        """Note that a connection has room again, or is closed."""
        self._full.pop(connection, None)
