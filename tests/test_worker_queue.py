"""The queue of one worker: the real queue and a real Redis, no process around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
from arq.connections import RedisSettings, create_pool
from arq.jobs import Job, JobStatus

from shared.broker.client import Client, connect
from shared.broker.keys import QUEUE
from shared.broker.queue import requeue
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


@asynccontextmanager
async def running(
    client: Client, generate: Callable[[str], Awaitable[None]], slots: int
) -> AsyncIterator[StreamQueue]:
    queue = StreamQueue(
        Settings(redis_url=client.url, concurrency=slots), "w1", generate, partial(requeue, client, life_s=60)
    )
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
        assert await requeue(client, stream_id, life_s=60)


async def test_arq_lists_the_jobs(client: Client) -> None:
    arq = await create_pool(
        RedisSettings.from_dsn(client.url), job_deserializer=msgspec.json.decode, default_queue_name=QUEUE
    )
    await put(client, "one", "two")
    jobs = await arq.queued_jobs()
    assert {(job.job_id, job.function, *job.args) for job in jobs} == {
        ("one", "generate", "one"),
        ("two", "generate", "two"),
    }
    gate = asyncio.Event()

    async def generate(stream_id: str) -> None:
        await gate.wait()

    waiting = Job("one", arq, QUEUE, msgspec.json.decode)
    assert await waiting.status() == JobStatus.queued
    async with running(client, generate, slots=2) as queue:
        while queue.free_slots:
            await asyncio.sleep(0.01)
        assert await arq.queued_jobs() == []
        described = await waiting.info()  # until the stream ends
        assert described is not None
        assert (described.function, list(described.args)) == ("generate", ["one"])
        gate.set()
    await arq.aclose(close_connection_pool=True)


async def test_a_job_leaves_nothing_in_redis(client: Client) -> None:
    """Not even a count of tries: the stream's state has its attempts."""
    done = asyncio.Event()

    async def generate(stream_id: str) -> None:
        done.set()

    async with running(client, generate, slots=2):
        await put(client, "one")
        await done.wait()
    left = {key async for key in client.scan_iter()}
    assert left == {b"arq:job:one", f"{QUEUE}:health:w1".encode()}


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
