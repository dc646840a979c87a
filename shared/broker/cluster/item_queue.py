"""The items that wait for one node."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ItemQueue(Generic[T]):
    """An ordered set of waiting items, for one task that takes them. ``tick_s`` returns how long to wait for further
    items after the first."""

    def __init__(self, tick_s: Callable[[], float]) -> None:
        self._tick_s = tick_s
        self._pause_s = 0.0
        self._items: dict[T, None] = {}
        self._due: asyncio.Future[None] | None = None  # while its task waits
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None

    def put(self, item: T, *, is_late: bool = False) -> None:
        """Add an item. ``is_late``: it has waited elsewhere, and ends the tick of the others."""
        self._items[item] = None
        if self._due is None or self._due.done():
            return
        if is_late:
            self._due.set_result(None)
        elif self._timer is None:
            self._set_timer()

    def withdraw(self, item: T) -> None:
        self._items.pop(item, None)

    def take(self) -> list[T]:
        items, self._items = list(self._items), {}
        return items

    def fail(self, error: BaseException) -> None:
        """Let the task that waits raise an error."""
        self._error = error
        if self._due is not None and not self._due.done():
            self._due.set_result(None)

    async def wait_until_due(self, pause_s: float) -> None:
        """Wait for the first item and for the tick after it, at least ``pause_s``, with one wake-up for both."""
        self._pause_s = pause_s
        self._due = asyncio.get_running_loop().create_future()
        if self._items:
            self._set_timer()
        try:
            if self._error is None:
                await self._due
        finally:
            self._due = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _set_timer(self) -> None:
        delay_s = max(self._tick_s(), self._pause_s)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._due is not None and not self._due.done():
            self._due.set_result(None)
