"""If a provider refuses, Redis is away or a worker dies, every client gets an answer or an error."""

import asyncio

import pytest

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.sse_client import Frame, text_of
from tests.system import System, ask

WORDS = [f"w{i} " for i in range(40)]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (Answer(status=401), "provider_auth", False),
        (Answer(status=404), "provider_model_not_found", False),
        (Answer(status=429), "provider_rate_limited", True),
        (Answer(status=500), "provider_unavailable", True),
        (Answer(end="refuse"), "provider_unreachable", True),
    ],
)
async def test_a_refusing_provider_ends_the_stream_with_its_error_code(
    system: System, provider: str, answer: Answer, code: str, retryable: bool
) -> None:
    system.fake.play("refuses", answer)
    async with await system.stream("refuses", "a private prompt", provider=provider) as connection:
        frames = [frame for frame in await connection.rest() if frame.event != "waiting"]
    assert [f.event for f in frames] == ["queued", "error", "done"]
    assert (frames[1].data["code"], frames[1].data["retryable"]) == (code, retryable)
    assert (frames[2].data["finish_reason"], frames[2].data["reason"]) == ("error", code)
    for leaked in (b"test-key", b"private", b"Traceback"):
        assert leaked not in connection.raw
    status = await system.status(connection.stream_id)
    assert (status["status"], status["error"]) == ("failed", frames[1].data)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
@pytest.mark.parametrize("end", ["truncate", "reset"])
async def test_an_aborted_answer_is_kept_and_ends_as_truncated(system: System, provider: str, end: str) -> None:
    gate = asyncio.Event()
    system.fake.play("breaks", Answer(deltas=WORDS, end=end, gate=gate, gate_after=len(WORDS)))  # type: ignore[arg-type]
    async with await system.stream("breaks", provider=provider) as connection:
        seen: list[Frame] = []
        while text_of(seen) != "".join(WORDS):
            seen.append(await connection.next("token"))
        gate.set()
        frames = await connection.rest()
    assert [f.event for f in frames] == ["error", "done"]
    assert frames[0].data["code"] == "upstream_truncated"
    assert (await system.status(connection.stream_id))["text"] == "".join(WORDS)


async def test_the_logs_carry_neither_prompt_nor_answer_nor_key(system: System) -> None:
    async with await system.stream("echo", "xyzzy-prompt") as connection:
        await connection.rest()

    async def logged() -> str | None:
        logs = "".join(process.log.read_text() for process in (*system.gateways, *system.workers))
        return logs if connection.stream_id in logs else None

    logs = await system.eventually(logged)
    for private in ("xyzzy-prompt", "test-key", "a private prompt"):
        assert private not in logs


async def test_an_answer_over_the_size_limit_ends_with_length(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, max_stream_bytes=20_000)
    system.fake.play("too-long", Answer(deltas=["0123456789"] * 100_000))
    async with await system.stream("too-long") as connection:
        frames = await connection.rest()
    assert (frames[-1].data["finish_reason"], frames[-1].data["reason"]) == ("length", "max_stream_bytes")
    assert 15_000 < len(text_of(frames)) < 60_000
    await system.fake.calls[0].wait_closed()


async def test_the_total_deadline_ends_a_stream(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, total_deadline_s=6)
    system.fake.play("for-ever", Answer(deltas=WORDS, end="hang"))
    async with await system.stream("for-ever") as connection:
        frames = await connection.rest()
    assert [f.data.get("code") for f in frames if f.event == "error"] == ["deadline_exceeded"]
    assert text_of(frames) == "".join(WORDS)
    await system.fake.calls[0].wait_closed()


async def test_a_live_stream_survives_an_outage_of_redis(start_system: StartSystem) -> None:
    """Requests get 503 meanwhile. The live answer continues, and nothing needs a restart."""
    system = await start_system()
    gate = asyncio.Event()
    system.fake.play("outage", Answer(deltas=WORDS, delay_s=0.02, gate=gate, gate_after=30))
    connection = await system.stream("outage")
    seen = [await connection.next("token")]
    system.broker.kill()
    for method, path in (("POST", "/chat"), ("GET", f"/chat/{connection.stream_id}"), ("GET", "/readyz")):
        body = ask("echo") if method == "POST" else None
        answer = await system.http.request(method, system.url + path, json=body)
        assert answer.status_code == 503, path
        assert answer.json()["error"]["retryable"] is True
        assert 0 < int(answer.headers["retry-after"]) <= 60
    assert (await system.http.get(f"{system.url}/healthz")).status_code == 200
    await system.broker.start()
    gate.set()
    seen += await connection.rest()
    assert text_of(seen) == "".join(WORDS)
    assert not any(frame.data.get("reset") for frame in seen)
    assert seen[-1].data["finish_reason"] == "stop"
    assert len(system.fake.calls) == 1
    assert all(process.alive for process in (*system.gateways, *system.workers))
    async with await system.stream("echo", "as before") as after:
        assert text_of(await after.rest()) == "as before"


async def test_a_redis_that_evicts_keys_stops_the_start(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1)
    async with system.broker.client() as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")

    async def refused() -> bool:
        answer = await system.http.get(f"{system.url}/readyz")
        return answer.status_code == 503 and answer.json()["error"]["code"] == "broker_unfit"

    await system.eventually(refused, timeout_s=30)
    for process in (system.gateways[0], system.workers[0]):
        process.stop()
        process.start()
        assert await process.wait() != 0
        assert "noeviction" in process.log.read_text()


async def test_a_lost_worker_is_replaced_and_its_readers_reset(start_system: StartSystem) -> None:
    """Another worker takes the stream after the lease, under another epoch."""
    system = await start_system(gateways=1, workers=2)
    gate = asyncio.Event()
    system.fake.play("dies", Answer(deltas=lambda number: [f"call{number} ", *WORDS], gate=gate, gate_after=10))
    async with await system.stream("dies") as connection:
        first = await connection.next("token")
        name = (await system.field(connection.stream_id, "holder") or "").split(".")[0]
        holder = next(w for w in system.workers if f'"worker":"{name}"' in w.log.read_text())
        holder.stop()
        gate.set()
        frames = await connection.rest()
    start = next(i for i, f in enumerate(frames) if f.event == "start")
    assert frames[start].data["reset"] is True
    assert frames[start].data["attempt"] == 2
    assert text_of(frames[start:]) == "call2 " + "".join(WORDS)
    assert first.data["token"].startswith("call1 ")
    assert frames[-1].data["finish_reason"] == "stop"


async def test_the_sweep_queues_a_lost_job_again(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, lease_s=1)
    system.workers[0].stop()
    stream_id = await system.post("echo", "found again")
    async with system.broker.client() as client:
        assert await client.zrem("hr:{desk}:queue", "{desk}" + stream_id) == 1
    system.workers[0].start()
    assert (await system.ended(stream_id))["text"] == "found again"
