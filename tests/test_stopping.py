"""Processes leave when they are told to, whatever their tasks are in the middle of."""

import asyncio

from shared.stopping import cancel_all


async def test_a_task_that_swallows_a_cancellation_is_told_again() -> None:
    """As redis-py's sending does under Python 3.11, once in some hundred times: a gateway then never left."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed == 2:
                    raise
                swallowed += 1

    async def ended() -> None:
        raise ValueError

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(ended())]
    await asyncio.sleep(0)
    await cancel_all(tasks)
    assert swallowed == 2
    assert all(task.done() for task in tasks)
    assert isinstance(tasks[1].exception(), ValueError)
