"""Turns of connections that have more to parse than one turn of the event loop should take."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Line of connections. One of them parses in each turn of the event loop, however many wait."""

    def __init__(self) -> None:
        self._line: deque[Callable[[], None]] = deque()

    @property
    def is_free(self) -> bool:
        return not self._line

    def wait(self, parse: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call ``parse`` when those before it have had a turn. It may wait again for its next one."""
        self._line.append(parse)
        if len(self._line) == 1:
            loop.call_soon(self._give, loop)

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._line[0]()
        finally:
            self._line.popleft()
            if self._line:
                loop.call_soon(self._give, loop)
