"""Periodic tasks of a process wake together."""

import asyncio

from shared.polling import next_poll


async def test_tasks_that_are_due_together_wake_in_one_turn_of_the_loop() -> None:
    """Their commands then share an exchange with Redis."""
    loop = asyncio.get_running_loop()
    woken, seen = list[str](), list[int]()

    async def poll(name: str) -> None:
        await next_poll(0.2)
        woken.append(name)
        loop.call_soon(lambda: seen.append(len(woken)))

    await next_poll(0.2)
    await asyncio.gather(poll("one"), poll("two"), poll("three"))
    await asyncio.sleep(0)
    assert seen == [3, 3, 3]


async def test_a_cancelled_task_delays_no_other() -> None:
    async with asyncio.timeout(60):
        await next_poll(0.1)
        cancelled, other = (next_poll(0.1) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await other
    assert cancelled.cancelled()
