"""Beyond the capacity, streams wait in a fair queue with a known position, and further requests are refused."""

import asyncio
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.chaos.proxy import Proxy
from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, token
from tests.fakes.answer import Answer
from tests.ports import free_port
from tests.responses import code_of
from tests.sse_client import SseConnection, open_sse, text_of
from tests.system import PROVIDERS, REPOSITORY, SECRET, Process, System, ask


async def gated(system: System, model: str, *, running: int) -> asyncio.Event:
    """Let ``model`` answer once the gate is open, and start ``running`` of its streams."""
    gate = asyncio.Event()
    system.fake.play(model, Answer(deltas=("one", " two"), gate=gate))
    before = len(system.fake.calls)
    for _ in range(running):
        await system.post(model)
    await system.fake.wait_calls(before + running)
    return gate


async def queued(system: System, user: str, prompt: str) -> str:
    body = ask("gated", prompt)
    answer = await system.http.post(f"{system.url}/chat", json=body, headers=bearer(token(user)))
    assert answer.status_code == 202, answer.text
    stream_id: str = answer.json()["stream_id"]
    return stream_id


async def test_requests_beyond_the_queue_depth_are_refused(start_system: StartSystem) -> None:
    system = await start_system(workers=1, concurrency=2, queue_depth=7)
    gate = await gated(system, "gated", running=2)
    posts = [system.http.post(f"{system.gateways[n % 2].url}/chat", json=ask("gated")) for n in range(60)]
    answers = await asyncio.gather(*posts)
    assert Counter(a.status_code for a in answers) == {202: 7, 503: 53}
    refused = next(a for a in answers if a.status_code == 503)
    assert code_of(refused) == (503, "queue_full")
    assert refused.json()["error"]["retryable"] is True
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    stream = await system.http.post(f"{system.url}/chat/stream", json=ask("gated"))
    assert code_of(stream) == (503, "queue_full")

    waiting = [a.json()["stream_id"] for a in answers if a.status_code == 202]
    await system.http.delete(f"{system.url}/chat/{waiting[0]}")  # a deleted stream makes room
    assert await system.post("gated")
    gate.set()
    for stream_id in waiting[1:]:
        assert (await system.ended(stream_id))["text"] == "one two"
    assert await system.post("gated")


async def test_a_full_queue_takes_one_request_of_others(start_system: StartSystem) -> None:
    """A principal that fills the queue locks out nobody, and the queue has a limit all the same."""
    system = await start_system(
        gateways=1,
        workers=1,
        concurrency=1,
        queue_depth=3,
        auth="jwt",
        credentials=boot_credentials(),
        **JWT_SETTINGS,
    )
    gate = await gated(system, "gated", running=1)

    async def post(user: str) -> int:
        answer = await system.http.post(f"{system.url}/chat", json=ask("gated"), headers=bearer(token(user)))
        return answer.status_code

    assert [await post("many") for _ in range(5)] == [202, 202, 202, 503, 503]
    assert [await post("few") for _ in range(2)] == [202, 503]
    assert [await post(f"other {n}") for n in range(3)] == [202, 202, 503]
    gate.set()


async def test_a_principal_that_queues_much_does_not_delay_others(start_system: StartSystem) -> None:
    system = await start_system(workers=1, concurrency=1, auth="jwt", credentials=boot_credentials(), **JWT_SETTINGS)
    gate = await gated(system, "gated", running=1)
    for n in range(40):
        await queued(system, "many", f"many {n}")
    await queued(system, "few", "few 0")
    await queued(system, "few", "few 1")
    await queued(system, "late", "late 0")
    gate.set()
    calls = await system.fake.wait_calls(44, timeout_s=60)
    order = [call.prompt for call in calls[1:]]
    assert {*order[:3]} == {"many 0", "few 0", "late 0"}  # each principal's first before any second one
    assert order.index("few 1") <= 5
    assert [p for p in order if p.startswith("many")] == [f"many {n}" for n in range(40)]


async def test_a_waiting_client_gets_its_queue_position_and_every_change(start_system: StartSystem) -> None:
    system = await start_system(workers=1, concurrency=1, gateways=2)
    gate = await gated(system, "gated", running=1)
    waiting = [await system.post("gated", str(n)) for n in range(4)]
    last = waiting[-1]
    async with await system.read(last, gateway=0) as one, await system.read(last, gateway=1) as other:
        first = [await one.next("queued"), await other.next("queued")]

        async def position(connection: SseConnection) -> int:
            return int((await connection.next("queued")).data["position"])

        if None in {frame.data["position"] for frame in first}:  # not known yet: it follows in a moment
            first = [await one.next("queued"), await other.next("queued")]
        assert [frame.data["position"] for frame in first] == [4, 4]
        assert (await system.status(last))["position"] == 4
        await system.http.delete(f"{system.url}/chat/{waiting[0]}")
        assert [await position(one), await position(other)] == [3, 3]
        await system.http.post(f"{system.url}/chat/{waiting[1]}/cancel")
        assert [await position(one), await position(other)] == [2, 2]
        gate.set()
        for connection in (one, other):
            rest = await connection.rest()
            assert {frame.data["position"] for frame in rest if frame.event == "queued"} <= {1}
            assert text_of(rest) == "one two"
    assert (await system.status(last))["position"] is None


async def test_a_provider_gets_no_more_streams_than_its_concurrency_limit(start_system: StartSystem) -> None:
    """The limit is over all workers, and other providers are not delayed by it."""
    system = await start_system(workers=2, concurrency=20, provider_streams='{"openai": 3}', providers=PROVIDERS)
    gate = asyncio.Event()
    system.fake.play("capped", Answer(deltas=("one", " two"), gate=gate))
    ids = [await system.post("capped") for _ in range(9)]
    await system.fake.wait_calls(3)
    free = [await system.post("echo", "free", provider="anthropic") for _ in range(5)]
    for stream_id in free:
        assert (await system.ended(stream_id))["text"] == "free"

    def open_now() -> int:
        return sum(call.model == "capped" and not call.closed.is_set() for call in system.fake.calls)

    async def all_parked() -> bool:
        async with system.broker.client() as client:
            return bool(await client.zcard("hr:{desk}:lane:openai:parked") == 6)

    await system.eventually(all_parked)
    assert open_now() == 3
    places = [(await system.status(stream_id))["position"] for stream_id in ids]
    assert sorted(p for p in places if isinstance(p, int)) == [1, 2, 3, 4, 5, 6]

    # One ends, one is cancelled while it waits, a worker dies: there are never more than three, and none is lost.
    running = next(i for i, place in zip(ids, places, strict=True) if place is None)
    await system.http.post(f"{system.url}/chat/{running}/cancel")
    await system.fake.wait_calls(3 + 5 + 1)
    parked = next(i for i, place in zip(ids, places, strict=True) if place == 6)
    await system.http.post(f"{system.url}/chat/{parked}/cancel")
    assert (await system.ended(parked))["status"] == "cancelled"
    timeline = (await system.http.get(f"{system.url}/ops/streams/{parked}")).json()["timeline"]
    assert [(each["what"], each["detail"]) for each in timeline][1] == ("parked", "openai")
    system.workers[0].stop()
    most = 0

    async def done() -> bool:
        nonlocal most
        most = max(most, open_now())
        statuses = [await system.status(stream_id) for stream_id in ids]
        if sum(status["status"] == "running" for status in statuses) == 3:
            gate.set()
        return all(status["ended_at"] for status in statuses)

    await system.eventually(done, timeout_s=90)
    assert most <= 3
    ended = Counter([(await system.status(stream_id))["status"] for stream_id in ids])
    assert ended == {"completed": 7, "cancelled": 2}
    assert await system.keys_without_expiry() == []


async def test_waiting_streams_survive_the_loss_of_the_queue(start_system: StartSystem) -> None:
    """The sweep finds waiting streams again."""
    system = await start_system(workers=1, concurrency=1, lease_s=1)
    gate = await gated(system, "gated", running=1)
    waiting = [await system.post("gated", str(n)) for n in range(3)]
    async with system.broker.client() as client:
        await client.delete("hr:{desk}:queue", "hr:{desk}:turns")
    gate.set()
    for stream_id in waiting:
        assert (await system.ended(stream_id, timeout_s=30))["text"] == "one two"


async def test_a_waiting_stream_is_read_by_post_too(start_system: StartSystem) -> None:
    system = await start_system(workers=1, concurrency=1)
    gate = await gated(system, "gated", running=1)
    async with await open_sse("POST", f"{system.url}/chat/stream", json=ask("gated")) as connection:
        assert (await connection.next("queued")).data["position"] == 1
        gate.set()
        assert text_of(await connection.rest()) == "one two"


async def test_cancelled_parked_streams_do_not_delay_others(start_system: StartSystem) -> None:
    system = await start_system(workers=1, concurrency=20, provider_streams='{"openai": 1}')
    gate = await gated(system, "gated", running=1)
    given_up = [await system.post("gated", str(n)) for n in range(12)]
    last = await system.post("gated", "last")

    async def parked(how_many: int) -> bool:
        async with system.broker.client() as client:
            return bool(await client.zcard("hr:{desk}:lane:openai:parked") == how_many)

    await system.eventually(lambda: parked(13))
    for n, stream_id in enumerate(given_up):
        if n % 2:
            await system.http.post(f"{system.url}/chat/{stream_id}/cancel")
        else:
            await system.http.delete(f"{system.url}/chat/{stream_id}")
    await system.eventually(lambda: parked(1))
    assert (await system.status(last))["position"] == 1
    gate.set()
    assert (await system.ended(last))["text"] == "one two"


async def test_a_stream_parked_while_a_slot_frees_is_not_forgotten(start_system: StartSystem) -> None:
    """A slot frees before the worker that parked the stream, which is far from Redis, has finished its job."""
    system = await start_system(workers=1, gateways=1, concurrency=1, provider_streams='{"openai": 1}')
    link = Proxy()
    link.target_port = system.broker.port
    await link.start()
    near = system.workers[0]
    far = near.environment | {
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{link.port}/0",
        "HEADRACE_CONCURRENCY": "9",
    }
    system.workers.append(Process("far", ["worker"], far, system.folder / "far.log"))
    system.workers[-1].start()
    try:
        await system.eventually(lambda: _workers(system, 2), timeout_s=60)
        link.delay_s = 0.05
        async with system.broker.client() as client:

            async def is_parked() -> bool:
                return bool(await client.zcard("hr:{desk}:lane:openai:parked"))

            for _ in range(8):
                gate = await gated(system, "gated", running=1)
                stream_id = await system.post("gated")
                await system.eventually(is_parked)
                gate.set()
                assert (await system.ended(stream_id))["text"] == "one two"
    finally:
        await link.stop()


async def _workers(system: System, wanted: int) -> bool:
    async with system.broker.client() as client:
        known: list[bytes] = await client.zrange("hr:{desk}:processes", 0, -1)
    return sum(each.startswith(b"w") for each in known) == wanted


async def test_a_worker_with_fewer_descriptors_than_slots_warns(tmp_path: Path) -> None:
    """It raises its soft limit first: the usual one of 1,024 does not suffice for the default number of slots."""
    log = tmp_path / "worker.log"
    environment = {
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "HEADRACE_SECRET": SECRET,
        "HEADRACE_LOG_FORMAT": "json",
    }
    with log.open("wb") as file:
        worker = subprocess.Popen(
            [
                "sh",
                "-c",
                'ulimit -n 500; ulimit -Sn 256; exec "$@"',
                "sh",
                sys.executable,
                "-m",
                "headrace",
                "worker",
            ],
            env=environment,
            cwd=REPOSITORY,
            stdout=file,
            stderr=file,
        )
    try:
        async with asyncio.timeout(100):
            while "file descriptors scarce" not in log.read_text():
                assert worker.poll() is None, log.read_text()
                await asyncio.sleep(0.05)
        assert "raise ulimit -n to 1128, or lower HEADRACE_CONCURRENCY" in log.read_text()
        assert resource.prlimit(worker.pid, resource.RLIMIT_NOFILE) == (500, 500)
    finally:
        worker.kill()
        worker.wait()
