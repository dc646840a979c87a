"""The queue counts as full while it takes longer than the queue timeout."""

import asyncio
import time

from gateway.intake.backlog import Backlog
from gateway.metrics import QUEUE_OLDEST
from shared.broker.client import Client
from shared.broker.keys import QUEUE, TAKEN, WAITING, provider_limit_keys


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


async def test_batch_streams_parked_at_a_provider_delay_nobody(client: Client) -> None:
    """A night's work waits for its provider for an hour: interactive requests are taken at once."""
    hour_ago = time.time() - 3600
    backlog = Backlog(client, longest_wait_s=5, limited=lambda: ["a", "b"])
    ids = [f"{n:032x}" for n in range(1000)]
    await client.zadd(WAITING, {each: (hour_ago * 1000) + n for n, each in enumerate(ids)})
    await client.zadd(provider_limit_keys("a")[1], dict.fromkeys(ids, (1 << 56) + (1 << 32) + hour_ago))
    reading = asyncio.create_task(backlog.run())
    while not backlog.drain_rate:
        await client.incr(TAKEN)
        await asyncio.sleep(0.1)
    assert backlog.batch == 1000
    assert not backlog.is_slow(is_batch=False)
    assert _oldest_s() < 60, "no more workers are called for"

    await client.zadd(provider_limit_keys("b")[1], {"an interactive one": time.time() - 300})
    await client.zadd(QUEUE, {"another": time.time()})
    while _oldest_s() < 60:
        await asyncio.sleep(0.1)
    assert 290 < _oldest_s() < 360
    reading.cancel()


def _oldest_s() -> float:
    return next(sample.value for metric in QUEUE_OLDEST.collect() for sample in metric.samples)
