"""A cache of loaded values that expire, with one load at a time per key."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from shared.polling import next_poll

Key = TypeVar("Key")
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """Loads values with ``load`` and returns each for ``fresh_s`` seconds. Concurrent callers of a key share one load
    and its error; errors are not cached. A caller that is cancelled leaves the load to the others. The cache is
    cleared when it has ``most`` values: so many keys are an attack, not a use.

    ``renewed_s``: for so long after its last use, a value is loaded again before it expires, so that callers need not
    wait for a Redis that is far away. For caches of few keys."""

    def __init__(
        self, load: Callable[[Key], Awaitable[Value]], *, fresh_s: float, renewed_s: float = 0, most: int = 10_000
    ) -> None:
        self._load = load
        self._fresh_s = fresh_s
        self._renewed_s = renewed_s
        self._most = most
        self._values: dict[Key, tuple[float, Value]] = {}
        self._loads: dict[Key, asyncio.Task[Value]] = {}
        self._used_at: dict[Key, float] = {}  # of keys that are renewed
        self._renewals: dict[Key, asyncio.Task[None]] = {}

    async def get(self, key: Key) -> Value:
        """Return the value, loaded if there is no fresh one. Raises the errors of ``load``."""
        cached, now = self._values.get(key), asyncio.get_running_loop().time()
        if self._renewed_s:
            self._used_at[key] = now
            if key not in self._renewals:
                self._renewals[key] = asyncio.create_task(self._renew(key))
        if cached is not None and now - cached[0] < self._fresh_s:
            return cached[1]
        return await asyncio.shield(self._loading(key))

    def forget(self, key: Key) -> None:
        self._values.pop(key, None)

    def _loading(self, key: Key) -> asyncio.Task[Value]:
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.ensure_future(self._load_into_cache(key))
        return task

    async def _load_into_cache(self, key: Key) -> Value:
        began_at = asyncio.get_running_loop().time()
        try:
            value = await self._load(key)
        finally:
            del self._loads[key]
        if len(self._values) >= self._most:
            self._values.clear()
        self._values[key] = began_at, value
        return value

    async def _renew(self, key: Key) -> None:
        """Load a value again and again until it is no longer used."""
        loop = asyncio.get_running_loop()
        while loop.time() - self._used_at[key] < self._renewed_s:
            await next_poll(self._fresh_s / 2)
            with suppress(Exception):  # the next caller gets it
                await asyncio.shield(self._loading(key))
        del self._used_at[key], self._renewals[key]
