"""A worker or gateway that dies, hangs or comes back loses no stream and doubles no text."""

import asyncio
import signal
from functools import partial

import pytest

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.sse_client import error_of, text_of
from tests.system import Process, System

WORDS = [f"w{i} " for i in range(30)]
#: Short, and yet long enough for a worker that gets no CPU time for two seconds.
LEASE_S = 4


def answers(gate: asyncio.Event, gate_after: int) -> Answer:
    """Return an answer whose text carries the number of the call, so that a mix of two calls shows."""
    return Answer(deltas=lambda n: [f"[{n}]{word}" for word in WORDS], gate=gate, gate_after=gate_after)


def text_of_call(number: int) -> str:
    return "".join(f"[{number}]{word}" for word in WORDS)


async def holder(system: System, stream_id: str) -> Process:
    name = (await system.field(stream_id, "holder") or "").split(".")[0]
    return next(worker for worker in system.workers if f'"worker":"{name}"' in worker.log.read_text())


async def stored_in_redis(system: System, stream_id: str) -> dict[bytes, bytes]:
    """Return everything that Redis keeps of a stream, but for what gateways and the desk change after its end."""
    passing = (b"arq:", b":readers", b":of:")
    async with system.broker.client() as client:
        keys = sorted([key async for key in client.scan_iter(match=f"*{stream_id}*")])
        return {key: await client.dump(key) or b"" for key in keys if not any(part in key for part in passing)}


@pytest.mark.parametrize("paused_after", [0, 1, 7, len(WORDS)])
async def test_a_worker_that_lost_its_lease_writes_nothing(start_system: StartSystem, paused_after: int) -> None:
    """A worker is stopped for longer than its lease, at the start, in the middle and before the terminal event."""
    system = await start_system(gateways=1, workers=2, lease_s=LEASE_S)
    gate = asyncio.Event()
    system.fake.play("zombie", answers(gate, paused_after))
    async with await system.stream("zombie") as connection:
        first_call = (await system.fake.wait_calls(1))[0]
        if paused_after:
            await connection.next("token")
        zombie = await holder(system, connection.stream_id)
        zombie.signal(signal.SIGSTOP)
        await system.fake.wait_calls(2)
        gate.set()  # for both: the zombie's socket fills while it sleeps
        frames = await connection.rest()
    last_start = max(i for i, frame in enumerate(frames) if frame.event == "start")
    assert text_of(frames[last_start:]) == text_of_call(2)
    assert [f.event for f in frames].count("done") == 1

    async def is_settled() -> bool:  # a step after `done`, which changes the state
        return await system.field(connection.stream_id, "owed") is None

    await system.eventually(is_settled)
    before = await stored_in_redis(system, connection.stream_id)

    zombie.signal(signal.SIGCONT)
    await first_call.wait_closed()

    async def woken() -> bool:
        return "claim lost" in zombie.log.read_text()

    await system.eventually(woken)
    assert await stored_in_redis(system, connection.stream_id) == before
    assert (await system.status(connection.stream_id))["text"] == text_of_call(2)


async def test_a_stream_fails_after_three_attempts(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=LEASE_S)
    gate = asyncio.Event()
    system.fake.play("fatal", answers(gate, 3))
    connection = await system.stream("fatal")
    for attempt in (1, 2, 3):
        start = await connection.next("start")
        assert (start.data["attempt"], start.data["reset"]) == (attempt, attempt > 1)
        await connection.next("token")
        system.workers[0].stop()
        system.workers[0].start()
    frames = await connection.rest()
    assert [f.data["code"] for f in frames if f.event == "error"] == ["worker_lost"]
    assert (frames[-1].event, frames[-1].data["finish_reason"]) == ("done", "error")
    assert len(system.fake.calls) == 3
    status = await system.status(connection.stream_id)
    assert status["status"] == "failed"
    assert str(status["text"]).startswith("[3]")  # the partial is kept


async def test_on_worker_lost_fail_ends_the_stream_instead_of_restarting(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=2, lease_s=LEASE_S)
    gate = asyncio.Event()
    system.fake.play("no-restart", answers(gate, 3))
    async with await system.stream("no-restart", on_worker_lost="fail") as connection:
        seen = [await connection.next("token")]
        (await holder(system, connection.stream_id)).stop()
        frames = await connection.rest()
    assert [f.data["code"] for f in frames if f.event == "error"] == ["worker_lost"]
    status = await system.status(connection.stream_id)
    assert status["text"] == text_of_call(1)[: len(str(status["text"]))]
    assert text_of(seen) in str(status["text"])
    assert len(system.fake.calls) == 1


async def test_a_worker_lost_before_the_first_token_is_replaced_without_a_reset(start_system: StartSystem) -> None:
    """No reader has received output, so the next attempt simply starts, also with on_worker_lost "fail"."""
    system = await start_system(gateways=1, workers=2, lease_s=LEASE_S)
    gate = asyncio.Event()
    system.fake.play("early", answers(gate, 0))
    async with await system.stream("early", on_worker_lost="fail") as connection:
        await system.fake.wait_calls(1)
        (await holder(system, connection.stream_id)).stop()
        gate.set()
        frames = await connection.rest()
    assert text_of(frames) == text_of_call(2)
    assert not any(frame.data.get("reset") for frame in frames)


async def test_a_worker_lost_before_the_end_is_replaced_with_a_reset(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=2, lease_s=LEASE_S)
    gate = asyncio.Event()
    system.fake.play("late", answers(gate, len(WORDS)))
    async with await system.stream("late") as connection:
        text = ""
        while text != text_of_call(1):
            text += (await connection.next("token")).data["token"]
        (await holder(system, connection.stream_id)).stop()
        gate.set()
        frames = await connection.rest()
    assert [f.data["reset"] for f in frames if f.event == "start"] == [True]
    assert text_of(frames) == text_of_call(2)
    assert [f.event for f in frames].count("done") == 1


@pytest.mark.parametrize("how", ["refused", "cancelled"])
async def test_a_later_attempt_without_output_keeps_the_partial_text(start_system: StartSystem, how: str) -> None:
    """Readers, the status and late joiners get the same text."""
    system = await start_system(gateways=1, workers=2, lease_s=LEASE_S)
    gate = asyncio.Event()
    system.fake.play("worse", answers(gate, 3))
    async with await system.stream("worse") as connection:
        await connection.next("token")
        system.fake.play("worse", Answer(status=500) if how == "refused" else answers(gate, 0))
        (await holder(system, connection.stream_id)).stop()
        if how == "cancelled":
            await system.fake.wait_calls(2)
            await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")
        frames = await connection.rest()
    start = next(i for i, frame in enumerate(frames) if frame.event == "start")
    assert frames[start].data["reset"] is True
    assert frames[-1].data["finish_reason"] == ("error" if how == "refused" else "cancelled")
    text = text_of(frames[start:])
    assert text
    assert text_of_call(1).startswith(text)
    assert (await system.status(connection.stream_id))["text"] == text
    async with await system.read(connection.stream_id) as late:
        assert text_of(await late.rest()) == text


async def test_a_client_resumes_elsewhere_after_its_gateway_dies(start_system: StartSystem) -> None:
    system = await start_system()
    gate = asyncio.Event()
    system.fake.play("gateway-dies", answers(gate, 10))
    async with await system.stream("gateway-dies") as connection:
        seen = [await connection.next("token")]
        system.gateways[0].stop()
    gate.set()
    async with await system.read(connection.stream_id, seen[-1].at, gateway=1) as again:
        seen += await again.rest()
    assert text_of(seen) == text_of_call(1)


async def test_a_gateway_that_hangs_does_not_hold_up_other_readers(start_system: StartSystem) -> None:
    """Its reader lease expires, and with it the window of the reader that it no longer serves."""
    system = await start_system(reader_lease_s=2, window=8, cap=32, max_event_bytes=256)
    words = [f"{i:06}" + "x" * 250 for i in range(600)]
    system.fake.play("hung", Answer(deltas=words, delay_s=0.001))
    stream_id = await system.post("hung")
    reader = await system.read(stream_id, gateway=0)
    await reader.next("token")
    system.gateways[0].signal(signal.SIGSTOP)
    try:
        await system.ended_unwatched(stream_id, timeout_s=60)
        async with await system.read(stream_id, gateway=1) as other:
            assert text_of(await other.rest()) == "".join(words)
    finally:
        system.gateways[0].signal(signal.SIGCONT)
        reader.cut()


async def has_swept_one(system: System, reason: str) -> bool:
    """Return True once the gateways have counted an ended stream, which they do after its readers have its ending."""
    metrics = "".join([(await system.http.get(f"{gateway.url}/metrics")).text for gateway in system.gateways])
    return f'headrace_swept_streams_total{{reason="{reason}"}} 1.0' in metrics


async def test_without_workers_a_stream_ends_by_queue_timeout(start_system: StartSystem) -> None:
    """Gateways sweep too, so the stream ends without any worker."""
    system = await start_system(lease_s=1, queue_timeout_s=2)
    for worker in system.workers:
        worker.stop()
    async with await system.stream("echo") as connection:
        frames = await connection.rest()
    assert [f.event for f in frames if f.event != "waiting"] == ["queued", "error", "done"]
    assert error_of(frames) == ("queue_timeout", True)
    await system.eventually(partial(has_swept_one, system, "queue_timeout"))


async def test_a_cancel_outlives_its_worker(start_system: StartSystem) -> None:
    """After the worker is gone, only the state has the cancel, and no other worker takes the stream."""
    system = await start_system(gateways=1, workers=1, lease_s=1)
    system.fake.play("cancelled", Answer(deltas=WORDS, gate=asyncio.Event(), gate_after=3))
    async with await system.stream("cancelled") as connection:
        await connection.next("token")
        system.workers[0].signal(signal.SIGSTOP)
        answer = await system.http.post(f"{system.url}/chat/{connection.stream_id}/cancel")
        assert answer.json()["status"] == "running"
        system.workers[0].stop()
        frames = await connection.rest()
    assert (frames[-1].event, frames[-1].data["finish_reason"]) == ("done", "cancelled")
    await system.eventually(partial(has_swept_one, system, "cancelled"))


async def test_a_cancel_that_races_the_end_gives_one_ending(system: System) -> None:
    """Each stream has one ending, and all readers get the same."""
    system.fake.play("race", Answer(deltas=WORDS[:5]))

    async def one(delay_s: float) -> str:
        async with await system.stream("race") as connection:
            await asyncio.sleep(delay_s)
            await system.http.post(f"{system.gateways[1].url}/chat/{connection.stream_id}/cancel")
            frames = await connection.rest()
        assert [f.event for f in frames].count("done") == 1
        assert frames[-1].event == "done"
        status = await system.ended(connection.stream_id)
        assert status["finish_reason"] == frames[-1].data["finish_reason"]
        assert status["text"] == text_of(frames)
        return str(status["status"])

    outcomes = await asyncio.gather(*(one(i * 0.0007) for i in range(60)))
    assert set(outcomes) <= {"completed", "cancelled"}
