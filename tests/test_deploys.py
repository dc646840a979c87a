"""SIGTERM to gateways and workers under load loses and doubles no token, and fails no request that is retried."""

import asyncio
import signal
from contextlib import suppress
from functools import partial

import httpx2
import pytest

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.ports import free_port
from tests.sse_client import Broken, Frame, open_sse, text_of
from tests.system import Process, System, ask

WORDS = [f"w{i} " for i in range(40)]


async def test_a_draining_gateway_makes_its_clients_reconnect(start_system: StartSystem) -> None:
    system = await start_system()
    gate = asyncio.Event()
    system.fake.play("drained", Answer(deltas=WORDS, gate=gate, gate_after=10))
    first = await system.stream("drained")
    seen = [await first.next("token")]
    other = await system.read(first.stream_id, gateway=0)
    await other.next("token")
    system.gateways[0].signal(signal.SIGTERM)
    for connection in (first, other):
        with pytest.raises(Broken):  # no terminating chunk: fetch-based clients reconnect too
            seen += await connection.rest()
        last_line = bytes(connection.raw).rsplit(b"\n\n", 1)[1]
        assert last_line.startswith(b"retry: ")  # after a whole event
        assert 1000 <= int(last_line.removeprefix(b"retry: ")) <= 3000
    assert await system.gateways[0].wait() == 0
    gate.set()
    async with await system.read(first.stream_id, seen[-1].at, gateway=1) as again:
        events = [frame for frame in seen if frame.id]
        whole = events + await again.rest()
    assert len({frame.id for frame in whole}) == len(whole)
    async with await system.read(first.stream_id, gateway=1) as complete:
        assert text_of(await complete.rest()) == "".join(WORDS)
    assert "Traceback" not in system.gateways[0].log.read_text()


async def test_a_draining_gateway_accepts_no_new_request(start_system: StartSystem) -> None:
    """A request on an open connection gets 503."""
    system = await start_system(gateways=1, workers=1)
    gate = asyncio.Event()
    system.fake.play("holds", Answer(deltas=WORDS, gate=gate, gate_after=1))
    async with await system.stream("holds") as connection:
        await connection.next("token")
        system.gateways[0].signal(signal.SIGTERM)
        with pytest.raises(Broken):
            await connection.rest()
    try:
        answer = await system.http.post(f"{system.url}/chat", json=ask("echo"))
    except httpx2.TransportError:
        return  # it has stopped
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")


async def test_a_client_that_resumes_at_once_does_not_come_back_to_a_draining_gateway(
    start_system: StartSystem,
) -> None:
    """The gateway listens no more when it cuts the streams; a connection that is open gets 503."""
    system = await start_system(gateways=1, workers=1)
    gate = asyncio.Event()
    system.fake.play("resumes", Answer(deltas=WORDS, gate=gate, gate_after=1))
    responses = f"{system.url}/v1/responses"
    body = {"model": "openai/resumes", "input": "hi", "background": True, "stream": True}
    async with await open_sse("POST", responses, json=body) as connection:
        created = await connection.next("response.created")
        url = f"{responses}/{created.data['response']['id']}?stream=true"
        await system.http.get(f"{system.url}/healthz")  # leaves an open connection
        system.gateways[0].signal(signal.SIGTERM)
        with pytest.raises(Broken):
            await connection.rest()
    statuses = []
    with suppress(httpx2.TransportError):
        while True:
            async with system.http.stream("GET", url) as answer:
                statuses.append(answer.status_code)
    with pytest.raises(httpx2.ConnectError):
        async with httpx2.AsyncClient(trust_env=False) as fresh:
            await fresh.get(url)
    assert set(statuses) <= {503}


async def is_draining(process: Process) -> bool:
    return '"draining"' in process.log.read_text()


async def test_a_draining_worker_finishes_its_streams(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, drain_s=20)
    gate = asyncio.Event()
    system.fake.play("finishes", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("finishes") as connection:
        seen = [await connection.next("token")]
        system.workers[0].signal(signal.SIGTERM)
        await system.eventually(partial(is_draining, system.workers[0]))
        late = await system.post("echo", "later")  # no worker takes it now
        gate.set()
        seen += await connection.rest()
    assert text_of(seen) == "".join(WORDS)
    assert await system.workers[0].wait() == 0
    assert (await system.status(late))["status"] == "queued"
    system.workers[0].start()
    assert (await system.ended(late))["text"] == "later"


async def test_a_draining_worker_hands_over_unfinished_streams(start_system: StartSystem) -> None:
    """A handover needs no lease to expire, and does not count as a failed attempt."""
    system = await start_system(gateways=1, workers=2, drain_s=0.2, lease_s=60)
    gate = asyncio.Event()
    system.fake.play("handed", Answer(deltas=lambda n: [f"call{n} ", *WORDS], gate=gate, gate_after=5))
    async with await system.stream("handed") as connection:
        await connection.next("token")
        (await holder(system, connection.stream_id)).signal(signal.SIGTERM)
        start = await connection.next("start")
        assert (start.data["reset"], start.data["attempt"]) == (True, 1)
        gate.set()
        assert text_of(await connection.rest()) == "call2 " + "".join(WORDS)
    await system.fake.calls[0].wait_closed()


async def test_a_handover_does_not_end_a_stream_older_than_the_queue_timeout(start_system: StartSystem) -> None:
    """The stream has run for longer than it may wait, but has not waited."""
    system = await start_system(gateways=1, workers=2, drain_s=0.1, queue_timeout_s=5)
    gate = asyncio.Event()
    system.fake.play("old", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("old") as connection:
        await connection.next("token")
        created = int(await system.field(connection.stream_id, "created") or 0)

        async def is_old() -> bool:
            async with system.broker.client() as client:
                seconds, _ = await client.time()
            return bool(seconds * 1000 - created > 5500)

        await system.eventually(is_old)
        (await holder(system, connection.stream_id)).signal(signal.SIGTERM)
        start = await connection.next("start")
        assert start.data["reset"] is True
        gate.set()
        assert text_of(await connection.rest()) == "".join(WORDS)


async def test_a_second_signal_stops_at_once(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, drain_s=600)
    gate = asyncio.Event()
    system.fake.play("stays", Answer(deltas=WORDS, gate=gate, gate_after=5))
    async with await system.stream("stays") as connection:
        await connection.next("token")
        worker = system.workers[0]
        worker.signal(signal.SIGTERM)

        async def drains() -> bool:
            return "draining" in worker.log.read_text()

        await system.eventually(drains)
        assert worker.alive
        worker.signal(signal.SIGTERM)
        await worker.wait()


@pytest.mark.timeout(300)
async def test_a_worker_that_waits_for_redis_stops_on_sigterm(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    nowhere = system.workers[0].environment | {"HEADRACE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    waiting = Process("waiting", ["worker"], nowhere, system.folder / "waiting.log")
    system.workers.append(waiting)
    waiting.start()

    async def waits() -> bool:
        return "Redis unusable" in waiting.log.read_text()

    await system.eventually(waits, timeout_s=60)
    waiting.signal(signal.SIGTERM)
    assert await waiting.wait() == 0


async def test_a_rolling_restart_under_load_loses_nothing(start_system: StartSystem) -> None:
    """Two gateways and two workers are replaced one after the other under 200 live streams."""
    streams = 200
    system = await start_system(drain_s=60, concurrency=250)
    words = [f"w{i} " for i in range(150)]
    system.fake.play("rolling", Answer(deltas=lambda n: [f"call{n} ", *words], delay_s=0.1))
    readers = [asyncio.create_task(_read_to_the_end(system, f"rolling-{i}", i % 2)) for i in range(streams)]
    await system.fake.wait_calls(streams, timeout_s=60)
    for process in (*system.gateways, *system.workers):
        process.signal(signal.SIGTERM)
        assert await process.wait(timeout_s=90) == 0
        process.start()
        await system.ready()
    texts, resets = [], 0
    for frames in await asyncio.gather(*readers):
        resets += sum(bool(frame.data.get("reset")) for frame in frames)
        assert frames[-1].data["finish_reason"] == "stop"
        ids = [frame.id for frame in frames if frame.id]
        assert len(set(ids)) == len(ids)
        texts.append(text_of(frames))
    assert resets == 0
    assert len(system.fake.calls) == streams
    assert sorted(texts) == sorted(f"call{call.number} " + "".join(words) for call in system.fake.calls)


async def holder(system: System, stream_id: str) -> Process:
    name = (await system.field(stream_id, "holder") or "").split(".")[0]
    return next(worker for worker in system.workers if f'"worker":"{name}"' in worker.log.read_text())


async def _read_to_the_end(system: System, key: str, gateway: int) -> list[Frame]:
    """Act as a client that retries: repeat the POST until it is accepted, then continue after the last id."""
    frames: list[Frame] = []
    stream_id = None
    while not frames or frames[-1].event != "done":
        headers = {"Idempotency-Key": key}
        try:
            if stream_id is None:
                connection = await system.stream("rolling", gateway=gateway, headers=headers)
            else:
                cursor = next((frame.id for frame in reversed(frames) if frame.id), None)
                connection = await system.read(stream_id, cursor, gateway=gateway)
            async with connection:
                if connection.status == 200:
                    stream_id = connection.stream_id
                    async for frame in connection.frames():
                        if frame.event != "queued":
                            frames.append(frame)
        except (Broken, OSError):
            pass
        if not frames or frames[-1].event != "done":
            gateway = 1 - gateway
            await asyncio.sleep(0.2)
    return frames
