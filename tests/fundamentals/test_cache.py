"""ExpiringCache: one load at a time per key, values that expire, no cached errors, a bound."""

import asyncio
from typing import Any

import pytest

from gateway.cache import ExpiringCache


class Source:
    """Counts loads. A load of a key waits while ``gate`` is closed and raises if the key is in ``failing``."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.failing: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, key: str) -> str:
        self.loads.append(key)
        await self.gate.wait()
        if key in self.failing:
            raise ConnectionError(key)
        return f"{key}{self.loads.count(key)}"


async def test_a_value_is_loaded_again_only_once_it_has_expired() -> None:
    source = Source()
    cache = ExpiringCache(source.load, fresh_s=60)
    assert [await cache.get("a"), await cache.get("a"), await cache.get("b")] == ["a1", "a1", "b1"]
    assert source.loads == ["a", "b"]
    brief = ExpiringCache(source.load, fresh_s=0.01)
    assert await brief.get("a") == "a2"
    await asyncio.sleep(0.02)
    assert await brief.get("a") == "a3"
    assert source.loads == ["a", "b", "a", "a"]


async def test_concurrent_callers_share_one_load_per_key() -> None:
    source = Source()
    source.gate.clear()
    cache = ExpiringCache(source.load, fresh_s=60)
    callers = [asyncio.create_task(cache.get(key)) for key in "aabab"]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*callers) == ["a1", "a1", "b1", "a1", "b1"]
    assert source.loads == ["a", "b"]


async def test_an_error_reaches_all_callers_and_is_not_cached() -> None:
    source = Source()
    source.failing.add("a")
    source.gate.clear()
    cache = ExpiringCache(source.load, fresh_s=60)
    callers = [asyncio.create_task(cache.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    source.gate.set()
    errors = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionError] * 3
    source.failing.clear()
    assert await cache.get("a") == "a2"


async def test_an_error_leaves_the_expired_value_unused() -> None:
    source = Source()
    cache = ExpiringCache(source.load, fresh_s=0.01)
    await cache.get("a")
    await asyncio.sleep(0.02)
    source.failing.add("a")
    with pytest.raises(ConnectionError):
        await cache.get("a")


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_a_cancelled_caller_leaves_the_load_to_the_others(cancelled: int) -> None:
    source = Source()
    source.gate.clear()
    cache = ExpiringCache(source.load, fresh_s=60)
    callers = [asyncio.create_task(cache.get("a")) for _ in range(2)]
    await asyncio.sleep(0)
    callers[cancelled].cancel()
    await asyncio.wait([callers[cancelled]])
    source.gate.set()
    assert await callers[1 - cancelled] == "a1"
    assert source.loads == ["a"]


async def test_a_forgotten_value_is_loaded_again() -> None:
    source = Source()
    cache = ExpiringCache(source.load, fresh_s=60)
    await cache.get("a")
    cache.forget("a")
    cache.forget("never loaded")
    assert await cache.get("a") == "a2"


async def test_a_full_cache_is_cleared() -> None:
    source = Source()
    cache = ExpiringCache(source.load, fresh_s=60, most=2)
    for key in "abc":
        await cache.get(key)
    assert await cache.get("c") == "c1"
    assert await cache.get("a") == "a2"


def tasks_of_caches() -> set[asyncio.Task[Any]]:
    """Return the tasks of all caches. Others are of servers that serve other tests too."""
    return {task for task in asyncio.all_tasks() if "ExpiringCache" in getattr(task.get_coro(), "__qualname__", "")}


async def test_a_value_is_renewed_without_callers_until_it_is_used_no_longer() -> None:
    source, before = Source(), tasks_of_caches()
    cache = ExpiringCache(source.load, fresh_s=0.02, renewed_s=2)
    assert await cache.get("a") == "a1"
    async with asyncio.timeout(60):
        while len(source.loads) < 3:
            await asyncio.sleep(0.002)
        source.failing.add("a")  # an error is the next caller's, and does not end the renewal
        while tasks_of_caches() - before:
            await asyncio.sleep(0.002)
    source.failing.clear()
    loads = len(source.loads)
    assert await cache.get("b") == "b1"
    assert source.loads[loads:] == ["b"]
