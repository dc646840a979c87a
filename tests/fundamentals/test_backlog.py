"""The backlog refuses a request that would wait longer than the queue timeout."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from gateway.intake.backlog import Backlog
from shared.broker.client import Client
from shared.broker.keys import TAKEN, WAITING
from shared.errors import QueueFull


def refused_with_queue_full() -> float:
    return REGISTRY.get_sample_value("headrace_refusals_total", {"code": "queue_full"}) or 0


async def test_a_request_that_would_wait_too_long_is_refused_at_once(client: Client) -> None:
    """1000 streams wait and about ten a second are taken, so the wait is longer than the queue timeout of 5 s."""
    backlog = Backlog(client, longest_wait_s=5)
    refusals = refused_with_queue_full()
    await client.zadd(WAITING, {f"id-{n}": n for n in range(1000)})
    backlog.check()  # without a measured drain rate, no request is refused
    reading = asyncio.create_task(backlog.run())
    while not backlog.drain_rate:
        await client.incr(TAKEN)
        await asyncio.sleep(0.1)
    with pytest.raises(QueueFull) as refused:
        backlog.check()
    assert "1000 requests wait" in refused.value.message
    assert refused_with_queue_full() == refusals + 1
    assert 1 <= refused.value.retry_after_s <= 60
    await client.delete(WAITING)
    while backlog.waiting:
        await asyncio.sleep(0.1)
    backlog.check()
    reading.cancel()
