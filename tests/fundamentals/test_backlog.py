"""The queue counts as full while it takes longer than the queue timeout."""

import asyncio

from gateway.intake.backlog import Backlog
from shared.broker.client import Client
from shared.broker.keys import TAKEN, WAITING


async def test_a_queue_is_slow_if_its_wait_exceeds_the_queue_timeout(client: Client) -> None:
    """1000 streams wait and about ten a second are taken, so the wait is longer than the queue timeout of 5 s."""
    backlog = Backlog(client, longest_wait_s=5)
    await client.zadd(WAITING, {f"id-{n}": n for n in range(1000)})
    assert not backlog.is_slow(is_batch=False), "there is no measured drain rate yet"
    reading = asyncio.create_task(backlog.run())
    while not backlog.drain_rate:
        await client.incr(TAKEN)
        await asyncio.sleep(0.1)
    assert backlog.is_slow(is_batch=False)
    backlog.batch = 1000
    assert not backlog.is_slow(is_batch=False), "batch streams do not delay interactive ones"
    assert backlog.is_slow(is_batch=True)
    refusal = backlog.refusal(1000)
    assert "1000 requests wait" in refusal.message
    assert 1 <= refusal.retry_after_s <= 60
    await client.delete(WAITING)
    while backlog.waiting:
        await asyncio.sleep(0.1)
    assert not backlog.is_slow(is_batch=True)
    reading.cancel()
