"""Live streams survive a Redis that restarts, loses data, goes back in time, freezes or is full, and keep their
ids."""

import asyncio
import shutil
import signal
import time

import pytest

from shared.broker.keys import WAITING, index_key, state_key
from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.sse_client import Frame, SseConnection, open_sse, text_of
from tests.system import System, ask

STREAMS = 12
WORDS = [f"w{i} " for i in range(120)]
#: A worker that stands still for some seconds is not a lost one. Workers restore a stream with their next append.
LEASE_S = 30


async def start_streams(
    system: System, *, delay_s: float = 0.03, gate: asyncio.Event | None = None
) -> list[tuple[SseConnection, list[Frame]]]:
    """Start live streams on both gateways, and return each with the frames read so far. ``gate``: no answer ends
    before it is set."""
    answer = Answer(
        deltas=lambda n: [f"[{n}]{word}" for word in WORDS], delay_s=delay_s, gate=gate, gate_after=len(WORDS)
    )
    system.fake.play("live", answer)
    connections = [await system.stream("live", gateway=i % 2) for i in range(STREAMS)]
    return [
        (connection, [await connection.next("start"), await connection.next("token")]) for connection in connections
    ]


async def all_is_well(system: System, live: list[tuple[SseConnection, list[Frame]]]) -> None:
    """Check that each reader got the text of one call, every token once under one epoch, and one ending."""
    numbers = set()
    everything = [(connection, seen + await connection.rest()) for connection, seen in live]
    for connection, received in everything:
        assert "worker_lost" not in {frame.data["state"] for frame in received if frame.event == "waiting"}
        frames = [frame for frame in received if frame.event != "waiting"]
        assert not any(frame.data.get("reset") for frame in frames)
        ids = [frame.at for frame in frames]
        assert len({at.split("-")[0] for at in ids}) == 1
        assert [int(at.split("-")[1]) for at in ids] == list(range(1, len(ids) + 1))
        number = frames[1].data["token"].split("]")[0].strip("[")
        numbers.add(number)
        assert text_of(frames) == "".join(f"[{number}]{word}" for word in WORDS)
        assert frames[-1].data["finish_reason"] == "stop"
        status = await system.status(connection.stream_id)
        assert status["text"] == text_of(frames)
        async with await system.read(connection.stream_id) as again:
            assert [f.id for f in await again.rest()] == ids
    assert len(numbers) == len([call for call in system.fake.calls if call.model == "live"]) == STREAMS
    assert all(process.alive for process in (*system.gateways, *system.workers))


async def test_redis_restarts_with_its_data(start_system: StartSystem) -> None:
    system = await start_system(lease_s=LEASE_S)
    live = await start_streams(system)
    system.broker.kill()
    await system.broker.start()
    await all_is_well(system, live)


async def test_redis_restarts_empty(start_system: StartSystem) -> None:
    system = await start_system(lease_s=LEASE_S)
    live = await start_streams(system)
    system.broker.kill()
    shutil.rmtree(system.broker.folder)
    await system.broker.start()
    await all_is_well(system, live)


async def test_redis_is_flushed(start_system: StartSystem) -> None:
    system = await start_system(lease_s=LEASE_S)
    live = await start_streams(system)
    async with system.broker.client() as client:
        await client.flushall()
        await client.script_flush()
    await all_is_well(system, live)


async def test_redis_goes_back_in_time(start_system: StartSystem) -> None:
    """An older copy of its data replaces it, as after a failover to a replica that is behind."""
    system = await start_system(lease_s=LEASE_S)
    live = await start_streams(system)
    copy = system.folder / "older"
    await asyncio.to_thread(shutil.copytree, system.broker.folder, copy)
    for connection, seen in live:
        seen.extend(await connection.take(20))
    system.broker.kill()
    shutil.rmtree(system.broker.folder)
    shutil.copytree(copy, system.broker.folder)
    await system.broker.start()
    await all_is_well(system, live)


async def test_an_ending_that_redis_lost_is_restored(start_system: StartSystem) -> None:
    """A worker keeps its events for a while after the end, and writes them again."""
    system = await start_system(lease_s=3)
    async with await system.stream("echo", "remember this") as connection:
        frames = await connection.rest()
    async with system.broker.client() as client:
        await client.flushall()

    async def healed() -> bool:
        answer = await system.http.get(f"{system.url}/chat/{connection.stream_id}")
        return answer.status_code == 200 and answer.json()["status"] == "completed"

    await system.eventually(healed)
    async with await system.read(connection.stream_id, gateway=1) as again:
        assert [f.id for f in await again.rest()] == [f.id for f in frames if f.id]


async def test_a_deleted_stream_is_not_restored(start_system: StartSystem) -> None:
    system = await start_system(lease_s=1)
    async with await system.stream("echo", "forget this") as connection:
        await connection.rest()
    url = f"{system.url}/chat/{connection.stream_id}"
    assert (await system.http.delete(url)).status_code == 204
    for _ in range(8):  # several renewals of the lease that lingers
        await asyncio.sleep(0.25)
        assert (await system.http.get(url)).status_code == 410


async def test_a_deleted_stream_is_not_restored_into_an_emptied_redis(start_system: StartSystem) -> None:
    """The worker keeps its events for some seconds after the end, but not once it meets the tombstone."""
    system = await start_system(gateways=1, workers=1, lease_s=1, log_level="debug")
    async with await system.stream("echo", "forget this") as connection:
        await connection.rest()
    url = f"{system.url}/chat/{connection.stream_id}"
    assert (await system.http.delete(url)).status_code == 204

    async def is_forgotten() -> bool:
        return "removed stream forgotten" in system.workers[0].log.read_text()

    await system.eventually(is_forgotten)  # of events that are dropped at their time, the log says nothing
    async with system.broker.client() as client:
        await client.flushall()
        await system.ready()
        assert await client.keys(f"hr:*{connection.stream_id}*") == []


async def test_redis_freezes_for_longer_than_the_lease(start_system: StartSystem) -> None:
    """Requests get 503. No stream of a healthy worker is taken over, although its lease could not be renewed and is
    due for the sweep when the broker thaws."""
    system = await start_system(lease_s=8)
    live = await start_streams(system, delay_s=0.12)
    system.broker.freeze()
    frozen_at = time.monotonic()
    answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
    assert answer.status_code == 503
    assert 0 < int(answer.headers["retry-after"]) <= 60
    await asyncio.sleep(frozen_at + 10 - time.monotonic())  # the fault itself: longer than the lease
    system.broker.thaw()
    await all_is_well(system, live)


async def test_redis_is_full(start_system: StartSystem) -> None:
    """Appends wait; endings and lease renewals continue; nothing is lost."""
    system = await start_system(lease_s=10)
    gate = asyncio.Event()
    live = await start_streams(system, gate=gate)
    async with system.broker.client() as client:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used // 2)
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
        assert (answer.status_code, answer.json()["error"]["retryable"]) == (503, True)
        cancelled, _ = live.pop()
        url = f"{system.gateways[1].url}/chat/{cancelled.stream_id}"
        assert (await system.http.post(f"{url}/cancel")).status_code == 202
        assert (await cancelled.rest())[-1].data["finish_reason"] == "cancelled"
        assert (await system.http.delete(url)).status_code == 204
        await client.config_set("maxmemory", 0)
    gate.set()
    system.fake.calls.pop(0)  # the cancelled stream is not counted
    await _all_but_one_is_well(system, live)


async def _all_but_one_is_well(system: System, live: list[tuple[SseConnection, list[Frame]]]) -> None:
    for connection, seen in live:
        frames = [frame for frame in seen + await connection.rest() if frame.event != "waiting"]
        number = frames[1].data["token"].split("]")[0].strip("[")
        assert text_of(frames) == "".join(f"[{number}]{word}" for word in WORDS)
        assert not any(frame.data.get("reset") for frame in frames)


async def test_redis_loses_its_scripts_and_connections(start_system: StartSystem) -> None:
    system = await start_system(lease_s=LEASE_S)
    live = await start_streams(system)
    async with system.broker.client() as client:
        for _ in range(5):
            await client.script_flush()
            await client.client_kill_filter(_type="normal", skipme=True)
            await client.client_kill_filter(_type="pubsub", skipme=True)
            await asyncio.sleep(0.1)
    await all_is_well(system, live)


async def test_a_stream_lost_with_its_worker_ends_as_lost(start_system: StartSystem) -> None:
    """There is neither silence nor a clean end: open readers get an error, new ones 503 and then 404."""
    system = await start_system(lease_s=1)
    gate = asyncio.Event()
    system.fake.play("lost", Answer(deltas=WORDS, gate=gate, gate_after=3))
    async with await system.stream("lost") as connection:
        await connection.next("token")
        for worker in system.workers:
            worker.stop()
        async with system.broker.client() as client:
            await client.flushall()
        url = f"{system.gateways[1].url}/chat/stream/{connection.stream_id}"
        answer = await system.http.get(url)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stream_recovering")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        frames = await connection.rest()
    assert [(f.event, f.id) for f in frames[-2:]] == [("error", None), ("done", None)]
    assert frames[-2].data["code"] == "stream_lost"

    async def forgotten() -> bool:
        return (await system.http.get(url)).status_code == 404

    await system.eventually(forgotten, timeout_s=60)


async def test_a_post_with_a_cursor_waits_until_its_stream_is_restored(start_system: StartSystem) -> None:
    """Redis has lost the key too. The client must not be sent away for good a moment before a worker restores it."""
    system = await start_system(workers=1)
    gate = asyncio.Event()
    system.fake.play("keyed", Answer(deltas=WORDS, gate=gate, gate_after=3))
    url, key = f"{system.url}/chat/stream", {"Idempotency-Key": "kept"}
    async with await open_sse("POST", url, headers=key, json=ask("keyed")) as connection:
        frames = [await connection.next("start"), await connection.next("token")]
    system.workers[0].signal(signal.SIGSTOP)
    async with system.broker.client() as client:
        await client.flushall()
    resume = key | {"Last-Event-ID": frames[-1].at}
    answer = await system.http.post(url, headers=resume, json=ask("keyed"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stream_recovering")
    system.workers[0].signal(signal.SIGCONT)
    gate.set()

    async def resumed() -> SseConnection | None:
        connection = await open_sse("POST", url, headers=resume, json=ask("keyed"))
        if connection.status == 200:
            return connection
        async with connection:
            assert connection.status == 503
        return None

    async with await system.eventually(resumed, timeout_s=60) as connection:
        frames += await connection.rest()
    assert text_of(frames) == "".join(WORDS)
    assert not any(frame.data.get("reset") for frame in frames)
    assert len(system.fake.calls) == 1


@pytest.mark.parametrize("how", ["emptied", "away"])
async def test_a_watched_stream_is_not_abandoned_after_an_outage(start_system: StartSystem, how: str) -> None:
    """Reader leases are lost with the data or expire while Redis is away, but the readers are still there."""
    system = await start_system(lease_s=LEASE_S, reader_lease_s=3)
    gate = asyncio.Event()
    system.fake.play("watched", Answer(deltas=WORDS, delay_s=0.075, gate=gate, gate_after=5))
    async with await system.stream("watched", grace_s=0.5) as connection:
        seen = [await connection.next("token")]
        gate.set()
        if how == "emptied":
            await asyncio.sleep(1)  # older than its grace
            async with system.broker.client() as client:
                await client.flushall()
        else:
            system.broker.kill()
            await asyncio.sleep(4.5)  # the fault: longer than reader lease and grace
            await system.broker.start()
        seen += await connection.rest()
    assert seen[-1].data["finish_reason"] == "stop"
    assert text_of(seen) == "".join(WORDS)


async def test_the_model_catalog_is_published_again_after_a_flush(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    async with system.broker.client() as client:
        await client.flushall()
    answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
    assert answer.status_code == 202

    async def told_again() -> bool:
        async with system.broker.client() as client:
            return bool(await client.exists("hr:{desk}:catalog"))

    await system.eventually(told_again)


async def test_redis_is_demoted_and_promoted_again(start_system: StartSystem) -> None:
    """Its replies are errors of many kinds, and every process survives them."""
    system = await start_system(lease_s=LEASE_S)
    live = await start_streams(system, delay_s=0.05)
    async with system.broker.client() as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
        assert answer.status_code == 503
        await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        await client.config_set("min-replicas-to-write", 1)
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
        assert answer.status_code == 503
        await client.config_set("min-replicas-to-write", 0)
    await all_is_well(system, live)


async def test_redis_goes_back_in_time_twice(start_system: StartSystem) -> None:
    """A reader's tolerance for the second outage does not depend on the first one."""
    system = await start_system(gateways=1, workers=1, lease_s=5)
    system.fake.play("twice", Answer(deltas=[f"w{i} " for i in range(260)], delay_s=0.1))
    async with await system.stream("twice", on_disconnect="continue") as connection:
        seen = await connection.take(10)
        for _ in range(2):
            copy = system.folder / f"older{len(seen)}"
            await asyncio.to_thread(shutil.copytree, system.broker.folder, copy)
            seen += await connection.take(25)
            system.workers[0].signal(signal.SIGSTOP)  # so that the reader is the first to notice
            system.broker.kill()
            shutil.rmtree(system.broker.folder)
            shutil.copytree(copy, system.broker.folder)
            await system.broker.start()
            await asyncio.sleep(1)
            system.workers[0].signal(signal.SIGCONT)
            seen += await connection.take(85)  # for longer than a reader's tolerance
        seen += await connection.rest()
    assert not any(frame.data.get("reset") for frame in seen)
    assert text_of(seen) == "".join(f"w{i} " for i in range(260))


async def test_a_stream_past_its_retention_is_not_restored(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, retention_s=1, lease_s=3)

    async def is_gone(stream_id: str) -> bool:
        async with system.broker.client() as client:
            return not await client.exists(state_key(stream_id))

    first = await system.post("echo")
    await system.eventually(lambda: is_gone(first))
    for _ in range(2):  # the worker renews its leases meanwhile
        later = await system.post("echo")
        while not await is_gone(later):
            assert await is_gone(first)
            await asyncio.sleep(0.02)


async def test_the_sweep_forgets_a_stream_that_vanished(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=1)
    system.workers[0].stop()
    stream_id = await system.post("echo")

    async def live(wanted: int) -> bool:
        async with system.broker.client() as client:
            return bool(await client.zcard(index_key(stream_id)) == wanted)

    assert await live(1)
    async with system.broker.client() as client:
        await client.delete(state_key(stream_id))
    await system.eventually(lambda: live(0))


async def test_a_running_stream_does_not_wait_in_an_older_redis(start_system: StartSystem) -> None:
    """The older Redis has the stream as waiting, although a worker has claimed it since."""
    system = await start_system(gateways=1, workers=1, concurrency=1, lease_s=3)
    gates = [asyncio.Event(), asyncio.Event()]
    for name, gate in zip(("first", "second"), gates, strict=True):
        system.fake.play(name, Answer(deltas=("one", " two"), gate=gate))
    await system.post("first")
    await system.fake.wait_calls(1)
    stream_id = await system.post("second")
    copy = system.folder / "older"
    await asyncio.to_thread(shutil.copytree, system.broker.folder, copy)
    gates[0].set()
    await system.fake.wait_calls(2)
    system.broker.kill()
    shutil.rmtree(system.broker.folder)
    shutil.copytree(copy, system.broker.folder)
    await system.broker.start()

    async def is_restored() -> bool:
        return await system.field(stream_id, "status") == "running"

    async def waits_no_more() -> bool:
        async with system.broker.client() as client:
            return await client.zscore(WAITING, stream_id) is None

    await system.eventually(is_restored, timeout_s=30)
    await system.eventually(waits_no_more)  # the next renewal of the lease tells the desk
    gates[1].set()
    assert (await system.ended(stream_id))["text"] == "one two"
