"""Processes stop on request, in any state of their tasks."""

import asyncio
import gc

from shared.broker.client import connect
from shared.broker.watch import BrokerWatch
from shared.cancellation import cancel_all
from shared.garbage import hold_garbage_collector
from tests.ports import free_port
from workers.main import wait_until_fit


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    """Under Python 3.11, redis-py swallows about one cancellation in a hundred while it sends; the gateway then never
    stopped."""
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


async def test_a_worker_that_waits_for_redis_uses_constant_memory_and_stops_on_request() -> None:
    """Each attempt fails with an exception that refers to itself, and the collector is off during a start."""
    client = connect(f"redis://127.0.0.1:{free_port()}/0")
    stop, thresholds = asyncio.Event(), gc.get_threshold()
    hold_garbage_collector()
    try:
        waiting = asyncio.create_task(wait_until_fit(stop, BrokerWatch(client)))
        async with asyncio.timeout(60):
            while not gc.isenabled():
                await asyncio.sleep(0.01)
        stop.set()
        assert not await waiting
    finally:
        gc.enable()
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        await client.aclose()
