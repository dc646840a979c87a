"""A cache of loaded values that expire, with one load at a time per key."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class ExpiringCache(Generic[Key, Value]):
    """Loads values with ``load`` and returns each for ``fresh_s`` seconds. Concurrent callers of a key share one load
    and its error; errors are not cached. A caller that is cancelled leaves the load to the others. The cache is
    cleared when it has ``most`` values: so many keys are an attack, not a use."""

    def __init__(self, load: Callable[[Key], Awaitable[Value]], *, fresh_s: float, most: int = 10_000) -> None:
        self._load = load
        self._fresh_s = fresh_s
        self._most = most
        self._values: dict[Key, tuple[float, Value]] = {}
        self._loads: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key) -> Value:
        """Return the value, loaded if there is no fresh one. Raises the errors of ``load``."""
        cached = self._values.get(key)
        if cached is not None and asyncio.get_running_loop().time() - cached[0] < self._fresh_s:
            return cached[1]
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.ensure_future(self._load_into_cache(key))
        return await asyncio.shield(task)

    def forget(self, key: Key) -> None:
        self._values.pop(key, None)

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
