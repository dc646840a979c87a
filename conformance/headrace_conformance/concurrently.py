"""Bounded concurrency."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int = 8) -> None:
    """Run ``work`` for every item, some at once. The first exception ends all and is raised."""
    left = iter(items)

    async def run() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(run())
    except* Exception as failures:  # noqa: BLE001
        raise failures.exceptions[0] from None
