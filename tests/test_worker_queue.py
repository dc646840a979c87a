"""The queue of one worker: the real queue and a real Redis, no process around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from shared.broker.client import Client, connect
from shared.broker.keys import QUEUE, job_id_of
from shared.cancellation import cancel_all
from shared.settings import Settings
from tests.broker import Broker
from workers.jobs.queue import StreamQueue


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    broker = Broker(tmp_path)
    await broker.start()
    client = connect(broker.url)
    yield client
    await client.aclose()
    broker.kill()


async def requeue(client: Client, stream_id: str) -> bool:
    """Put an id before all others."""
    first = await client.zrange(QUEUE, 0, 0, withscores=True)
    added: int = await client.zadd(QUEUE, {job_id_of(stream_id): first[0][1] - 1 if first else 0})
    await client.expire(QUEUE, 60)
    return bool(added)


@asynccontextmanager
async def running(
    client: Client, generate: Callable[[str], Awaitable[None]], slots: int
) -> AsyncIterator[StreamQueue]:
    settings = Settings(redis_url=client.url, concurrency=slots)
    queue = StreamQueue(client.servers, settings, "w1", generate, partial(requeue, client))
    taking = asyncio.create_task(queue.main())
    try:
        yield queue
        queue.quiet()
        await taking
        await queue.drained()
    finally:
        await cancel_all([taking, *queue.tasks.values()])
        await queue.close()


async def put(client: Client, *ids: str) -> None:
    for stream_id in ids:
        await requeue(client, stream_id)


async def test_a_job_leaves_nothing_in_redis(client: Client) -> None:
    """Not even a count of tries: the stream's state has its attempts."""
    done = asyncio.Event()

    async def generate(stream_id: str) -> None:
        done.set()

    async with running(client, generate, slots=2):
        await put(client, "one")
        await done.wait()
    left = {key async for key in client.scan_iter()}
    assert left == {f"{QUEUE}:health:w1".encode()}


async def test_a_failed_job_frees_its_slot(client: Client) -> None:
    started = list[str]()

    async def generate(stream_id: str) -> None:
        started.append(stream_id)
        raise ValueError(stream_id)

    async with running(client, generate, slots=1) as queue:
        await put(client, "one", "two", "three")
        while len(started) < 3 or queue.tasks:
            await asyncio.sleep(0.01)
    assert sorted(started) == ["one", "three", "two"]


async def test_a_stalled_event_loop_takes_every_job_one_at_a_time(client: Client) -> None:
    """Its other jobs are left to other workers as long as they take them; none is left for good."""
    loop, gate = asyncio.get_running_loop(), asyncio.Event()
    started, is_stalling = list[str](), [True]

    async def generate(stream_id: str) -> None:
        started.append(stream_id)
        await gate.wait()

    def stall() -> None:
        time.sleep(0.12)
        if is_stalling:
            loop.call_soon(stall)

    async def taken(count: int) -> None:
        async with asyncio.timeout(60):
            while len(started) < count:
                await asyncio.sleep(0)

    async def calls_of_zpopmin() -> int:
        stats = await client.info("commandstats")
        calls: int = stats.get("cmdstat_zpopmin", {"calls": 0})["calls"]
        return calls

    async with running(client, generate, slots=100):
        await put(client, "first")
        await taken(1)
        loop.call_soon(stall)
        await put(client, "second")  # taken by the call that was blocked before the stall
        await taken(2)
        in_batches = await calls_of_zpopmin()
        others = [f"other{n}" for n in range(6)]
        await put(client, *others)
        await taken(8)
        assert await calls_of_zpopmin() == in_batches
        is_stalling.clear()
        gate.set()
    assert sorted(started) == sorted(["first", "second", *others])
