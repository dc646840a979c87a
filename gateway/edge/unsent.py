"""Deadline for bytes that were written and that the peer does not take.

A stream has a deadline for each write (``gateway/live/sse.py``). It does not cover what the transport still holds
when a response is complete or a connection is closed: a client that reads a byte a second would keep that, and its
socket, for hours. It does not cover other responses either.
"""

import asyncio
from typing import Final, Protocol

#: A peer must take so many bytes within the deadline, or all that are left. A stream's write has the same size.
_MOST_PER_DEADLINE: Final = 64 * 1024
#: A stream's own deadline comes first: it is counted and logged.
_LATER_S: Final = 0.5


class Sender(Protocol):
    """The parts of a connection that :class:`Unsent` inspects."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    @property
    def awaits_peer(self) -> bool:
        """True if nothing more is written until the peer takes what is there."""
        ...

    @property
    def writes(self) -> object:
        """A value that changes whenever a response begins or the peer has made room."""
        ...


class Unsent:
    """Timer of one connection."""

    def __init__(self, sender: Sender, deadline_s: float) -> None:
        self._sender = sender
        self._every_s = deadline_s + _LATER_S
        self._size = 0
        self._writes: object = None
        self._timer = sender.loop.call_later(self._every_s, self._check)

    def stop(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        sender = self._sender
        size = sender.transport.get_write_buffer_size() if sender.awaits_peer else 0
        is_watched = self._size > 0 and sender.writes == self._writes
        if is_watched and size > max(0, self._size - _MOST_PER_DEADLINE):
            sender.transport.abort()
            return
        self._size, self._writes = size, sender.writes
        self._timer = sender.loop.call_later(self._every_s, self._check)
