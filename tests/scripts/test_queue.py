"""The queue and the sweep."""

import asyncio

import msgspec
import pytest
from arq.connections import RedisSettings, create_pool
from arq.jobs import Job, JobStatus

from shared.broker.client import Client, run_script
from shared.broker.desk_replies import Requeued
from shared.broker.keys import QUEUE, job_id_of, principal_streams_key, sweep_keys
from shared.broker.replies import Due
from tests.broker import Broker
from tests.scripts.stream import (
    DONE,
    INDEX,
    LATE_MS,
    LEASE_MS,
    ON_CLUSTER,
    PULSE,
    RETENTION_MS,
    SCRIPTS,
    SETTINGS,
    Stream,
    be_well,
    now_ms,
)


async def test_requeue(client: Client) -> None:
    lost, waiting = await Stream(client).create(), await Stream(client, key=False).create()
    turn = int((await lost.desk())["turn"])
    assert await client.zpopmin(QUEUE, 1) == [(job_id_of(lost.id).encode(), 1.0 * turn)]
    call = SCRIPTS.desk.requeue(lost.id)
    assert await run_script(client, call) is Requeued.QUEUED
    assert await run_script(client, call) is Requeued.KNOWN
    assert [name for name, _ in await client.zpopmin(QUEUE, 2)] == [
        job_id_of(each.id).encode() for each in (lost, waiting)
    ]
    assert await run_script(client, call) is Requeued.QUEUED
    assert await run_script(client, SCRIPTS.desk.requeue("0" * 34)) is Requeued.UNKNOWN


async def test_arq_lists_the_jobs(client: Client) -> None:
    """Its own client reads the queue and the jobs, which are in one slot."""
    arq = await create_pool(
        RedisSettings.from_dsn(client.url), job_deserializer=msgspec.json.decode, default_queue_name=QUEUE
    )
    one, two = [await Stream(client, key=False).create() for _ in range(2)]
    jobs = await arq.queued_jobs()
    assert [(job.job_id, job.function, *job.args) for job in jobs] == [
        (job_id_of(stream.id), "generate", stream.id) for stream in (one, two)
    ]
    waiting = Job(job_id_of(one.id), arq, QUEUE, msgspec.json.decode)
    assert await waiting.status() == JobStatus.queued
    assert [job_id for job_id, _ in await client.zpopmin(QUEUE, 1)] == [waiting.job_id.encode()]
    holder = await one.claim()
    assert [job.job_id for job in await arq.queued_jobs()] == [job_id_of(two.id)]
    described = await waiting.info()  # until the stream ends
    assert described is not None
    assert (described.function, list(described.args)) == ("generate", [one.id])
    await one.finish(holder, 1, [DONE])
    assert await waiting.info() is None
    assert await arq.all_job_results() == []
    await arq.aclose(close_connection_pool=True)


async def test_the_index_of_a_principal_outlives_each_stream_in_it(client: Client) -> None:
    """A stream expires after its retention from its end, which may be hours after its creation."""
    await Stream(client).create(principal="lister")
    longest_s = SETTINGS.queue_timeout_s + SETTINGS.max_attempts * (SETTINGS.total_deadline_s + SETTINGS.lease_s)
    left_ms = await client.pttl(principal_streams_key("lister"))
    assert left_ms > RETENTION_MS + longest_s * 1000 - LATE_MS


async def test_sweep(client: Client) -> None:
    stream = await Stream(client).create()
    bucket = next(keys for keys in sweep_keys() if keys[0] == stream.keys[INDEX])
    assert bucket[1] == stream.keys[PULSE]

    async def sweep() -> Due:
        return await run_script(client, SCRIPTS.sweep([bucket]))

    async def trouble() -> str | None:
        value: bytes | None = await client.hget(stream.keys[PULSE], "trouble")  # type: ignore[misc]
        return value.decode() if value is not None else None

    first = await sweep()
    assert first.stream_ids == []
    assert now_ms() - LATE_MS < first.now_ms <= now_ms() + 1000
    assert await trouble() == str(first.now_ms)  # without a pulse, Redis is new or has lost everything
    await client.hset(stream.keys[PULSE], "at", str(now_ms() + 60_000))  # type: ignore[misc]  # no pause of this test
    assert (await sweep()).stream_ids == []
    assert await trouble() == str(first.now_ms)

    await client.zadd(stream.keys[INDEX], {stream.id: now_ms() - 1})
    assert (await sweep()).stream_ids == [stream.id]
    assert (await sweep()).stream_ids == []
    assert (await stream.next_look() or 0) > now_ms() + LEASE_MS - LATE_MS

    await be_well(stream, at=now_ms() - 3000)
    assert await trouble() is None
    frozen = await sweep()
    assert await trouble() == str(frozen.now_ms)
    await be_well(stream, run_id="another")
    replaced = await sweep()
    assert await trouble() == str(replaced.now_ms)


@pytest.mark.skipif(ON_CLUSTER, reason="there a call has one bucket")
async def test_one_call_sweeps_any_number_of_buckets(client: Client) -> None:
    due = [await Stream(client, key=False).create() for _ in range(5)]
    for stream in due:
        await client.zadd(stream.keys[INDEX], {stream.id: now_ms() - 1})
    found = await run_script(client, SCRIPTS.sweep(sweep_keys()))
    assert sorted(found.stream_ids) == sorted(stream.id for stream in due)
    pulses = [await client.hgetall(pulse) for _, pulse in sweep_keys()]  # type: ignore[misc]
    run_id = (await client.info("server"))["run_id"].encode()
    assert {(pulse[b"at"], pulse[b"run_id"]) for pulse in pulses} == {(str(found.now_ms).encode(), run_id)}


@pytest.mark.skipif(ON_CLUSTER, reason="there a call has one bucket")
async def test_the_file_of_redis_does_not_grow_with_every_pulse(client: Client, scripts_broker: Broker) -> None:
    """A Redis that starts from its file counts as away, so the file need not have the time of the latest pulse."""

    async def sweep(after: int) -> int:
        while (due := await run_script(client, SCRIPTS.sweep(sweep_keys()))).now_ms == after:
            pass
        return due.now_ms

    first = await sweep(0)
    second = await sweep(first)
    # The lives are extended in each hour, and two seconds without a pulse are an outage.
    while second // 3_600_000 != first // 3_600_000 or second - first > 2000:
        first, second = second, await sweep(second)
    await client.set("the end", "of this test", px=60_000)
    while b"of this test" not in (
        written := b"".join(path.read_bytes() for path in sorted(scripts_broker.folder.glob("appendonlydir/*.aof")))
    ):
        await asyncio.sleep(0.01)
    # Earlier tests, before the fixture emptied Redis, may have written this very time as one to come.
    written = written.rpartition(b"FLUSHALL")[2]
    assert str(second).encode() not in written
    assert written.count(str(first).encode()) >= len(sweep_keys())
