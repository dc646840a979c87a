"""Storage is bounded: per principal, and in all by dropping the oldest answers before Redis is full."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.broker import Broker
from tests.conftest import StartSystem
from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, make_key
from tests.fakes.answer import Answer
from tests.responses import code_of
from tests.system import System, ask

IMAGE = "data:image/png;base64," + "A" * 300_000
names = (f"user-{n}" for n in itertools.count())


@pytest.fixture(scope="module")
async def bounded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A gateway that may drop an answer once it has ended, with limits of stored bytes by API key."""
    system = System(
        tmp_path_factory.mktemp("bounded"),
        gateways=1,
        workers=1,
        providers=("openai",),
        auth="keys,jwt",
        retention_min_s=0,
        max_conversation_bytes=1_000_000,
        **JWT_SETTINGS,
    )
    try:
        system.http.headers.update(boot_credentials())
        await system.start()
        del system.http.headers["Authorization"]
        yield system
    finally:
        await system.stop()


async def key_of(system: System, stored_bytes: int) -> str:
    return await make_key(system, next(names), "--stored-bytes", str(stored_bytes))


def with_image(text: str = "look") -> list[dict[str, Any]]:
    return [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": IMAGE}]


async def respond(system: System, key: str, content: object, previous: str | None = None) -> httpx2.Response:
    body: dict[str, Any] = {"model": "openai/echo", "input": [{"role": "user", "content": content}]}
    if previous:
        body["previous_response_id"] = previous
    return await system.http.post(f"{system.url}/v1/responses", json=body, headers=bearer(key))


async def ended(system: System, key: str, prompt: str = "hi") -> str:
    answer = await system.http.post(f"{system.url}/chat", json=ask("echo", prompt), headers=bearer(key))
    assert answer.status_code == 202, answer.text
    stream_id: str = answer.json()["stream_id"]

    async def look() -> bool:
        status = await system.http.get(f"{system.url}/chat/{stream_id}", headers=bearer(key))
        return bool(status.json().get("ended_at"))

    await system.eventually(look)
    return stream_id


async def status_of(system: System, key: str, stream_id: str) -> int:
    return (await system.http.get(f"{system.url}/chat/{stream_id}", headers=bearer(key))).status_code


async def stored_total(system: System) -> int:
    async with system.broker.client() as client:
        keys = {key async for key in client.scan_iter("hr:{desk}:stored:*")}  # a scan may return one twice
        return sum([int(await client.hget(key, "total") or 0) for key in keys])  # type: ignore[misc]


async def test_chained_images_do_not_grow_beyond_the_limit(bounded: System) -> None:
    """Each turn stores the whole conversation again; the oldest turns make room, and a conversation has a limit."""
    key = await key_of(bounded, 2_000_000)
    before, previous, answers = await stored_total(bounded), None, []
    for turn in range(12):
        answer = await respond(bounded, key, with_image(f"turn {turn}"), previous)
        answers.append(answer)
        if answer.status_code != 200:
            break
        previous = answer.json()["id"]
        assert await stored_total(bounded) - before < 2_000_000 + 10_000
    assert answers[-1].status_code == 400
    assert "the limit is 1000000" in answers[-1].text
    assert len(answers) >= 3


async def test_at_its_limit_a_principal_loses_its_oldest_answers(bounded: System) -> None:
    key, other = await key_of(bounded, 50_000), await key_of(bounded, 50_000)
    others = await ended(bounded, other)
    streams = [await ended(bounded, key, "x" * 8_000) for _ in range(8)]
    codes = [await status_of(bounded, key, stream_id) for stream_id in streams]
    assert codes == sorted(codes, reverse=True)
    assert set(codes) == {410, 200}
    gone = await bounded.http.get(f"{bounded.url}/chat/stream/{streams[0]}", headers=bearer(key))
    assert code_of(gone) == (410, "stream_gone")
    listed = await bounded.http.get(f"{bounded.url}/chat", headers=bearer(key))
    assert {stream["stream_id"] for stream in listed.json()["streams"]} == {
        stream_id for stream_id, code in zip(streams, codes, strict=True) if code == 200
    }
    assert await status_of(bounded, other, others) == 200
    assert await status_of(bounded, other, streams[0]) == 404, "for others it never existed"
    metrics = (await bounded.http.get(f"{bounded.url}/metrics")).text
    assert 'headrace_dropped_answers_total{reason="stored_bytes"}' in metrics
    assert "answers dropped" in bounded.gateways[0].log.read_text()


async def test_a_principal_whose_answers_must_be_kept_is_refused(bounded: System) -> None:
    gate = asyncio.Event()
    bounded.fake.play("kept", Answer(gate=gate))
    key = await key_of(bounded, 40_000)
    for _ in range(3):
        accepted = await bounded.http.post(f"{bounded.url}/chat", json=ask("kept", "x" * 7_000), headers=bearer(key))
        assert accepted.status_code == 202
    refused = await bounded.http.post(f"{bounded.url}/chat", json=ask("kept", "x" * 7_000), headers=bearer(key))
    gate.set()
    assert code_of(refused) == (429, "stored_bytes_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "40000 bytes" in refused.text
    too_large = await bounded.http.post(f"{bounded.url}/chat", json=ask("kept", "x" * 50_000), headers=bearer(key))
    assert code_of(too_large) == (422, "invalid_request")


async def test_a_principal_far_above_its_limit_is_stopped(bounded: System) -> None:
    """Answers in progress grow beyond the limit that was checked when they began."""
    gate = asyncio.Event()
    bounded.fake.play("endless", Answer(deltas=["x" * 1000] * 4000, delay_s=0.02))
    bounded.fake.play("patient", Answer(deltas=("a", "b"), gate=gate, gate_after=1))
    other = await bounded.http.post(
        f"{bounded.url}/chat", json=ask("patient"), headers=bearer(await key_of(bounded, 100_000))
    )
    key = await key_of(bounded, 20_000)
    accepted = await bounded.http.post(f"{bounded.url}/chat", json=ask("endless"), headers=bearer(key))

    async def status() -> dict[str, Any] | None:
        answer = await bounded.http.get(f"{bounded.url}/chat/{accepted.json()['stream_id']}", headers=bearer(key))
        found: dict[str, Any] = answer.json()
        return found if found.get("ended_at") else None

    ended = await bounded.eventually(status, timeout_s=90)
    assert (ended["status"], ended["reason"]) == ("cancelled", "stored_bytes")
    assert 15_000 < len(ended["text"]) < 4_000_000  # its bookkeeping takes some of the 20,000 bytes too
    gate.set()
    assert other.status_code == 202


async def test_images_count_as_tokens(bounded: System) -> None:
    key = await make_key(bounded, next(names), "--tokens-per-minute", "2500")
    part = {"type": "image_url", "image_url": {"url": "https://images.example/1.png"}}
    for images, status in ((3, 422), (1, 202)):
        body = {"model": "openai/echo", "max_tokens": 5, "messages": [{"role": "user", "content": [part] * images}]}
        answer = await bounded.http.post(f"{bounded.url}/chat", json=body, headers=bearer(key))
        assert answer.status_code == status, answer.text


async def test_references_are_limited(bounded: System) -> None:
    key = await key_of(bounded, 0)
    first = (await respond(bounded, key, "hi")).json()
    references = [{"type": "item_reference", "id": first["output"][0]["id"]}] * 129
    for count, status in ((128, 200), (129, 400)):
        body = {"model": "openai/echo", "input": [*references[:count], {"role": "user", "content": "and?"}]}
        answer = await bounded.http.post(f"{bounded.url}/v1/responses", json=body, headers=bearer(key))
        assert answer.status_code == status, answer.text
    assert "129 item references, more than 128" in answer.text


async def test_a_replay_with_a_new_chat_id_creates_no_key(bounded: System) -> None:
    key = await key_of(bounded, 0)
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
    headers = bearer(key) | {"Idempotency-Key": "once"}

    async def send(chat: str) -> None:
        body = {"id": chat, "model": "openai/echo", "messages": [message], "trigger": "submit-message"}
        answer = await bounded.http.post(f"{bounded.url}/api/chat", json=body, headers=headers)
        assert answer.status_code == 200, answer.text

    async def chats() -> int:
        async with bounded.broker.client() as client:
            return len({name async for name in client.scan_iter("hr:chat:*:latest")})

    before = await chats()
    for n in range(5):
        await send(f"chat-{n}")
    assert await chats() == before + 1
    async with bounded.broker.client() as client:
        await client.delete(*[name async for name in client.scan_iter("hr:chat:*")])
    await send("chat-0")
    assert await chats() == 1, "a replay for its own chat notes it again"


async def test_before_redis_is_full_the_oldest_answers_go(start_system: StartSystem) -> None:
    """Answers go from 80 % of maxmemory on. No request is refused, and a running stream stays whole."""
    system = await start_system(
        gateways=1, workers=1, providers=("openai",), retention_min_s=0, stored_bytes=0, max_body_bytes=2**21
    )
    gate = asyncio.Event()
    system.fake.play("long", Answer(deltas=("a", "b", "c"), gate=gate, gate_after=1))
    running = await system.post("long")
    first = await system.post("echo", "x" * 1000)
    await system.ended(first)
    await _limit_memory(system.broker, 6_000_000)
    for _ in range(60):
        await system.ended(await system.post("echo", "y" * 150_000))
    assert (await system.http.get(f"{system.url}/chat/{first}")).status_code == 410
    gate.set()
    assert (await system.ended(running))["text"] == "abc"
    assert 'headrace_dropped_answers_total{reason="memory"}' in await _all_metrics(system)


async def test_a_redis_that_is_full_of_answers_to_keep_refuses_by_name(start_system: StartSystem) -> None:
    system = await start_system(gateways=1, workers=1, providers=("openai",), stored_bytes=0)
    kept = await system.post("echo")
    await system.ended(kept)
    await _limit_memory(system.broker, -800_000)
    refused = await system.http.post(f"{system.url}/chat", json=ask("echo"))
    assert code_of(refused) == (503, "broker_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await system.http.get(f"{system.url}/chat/{kept}")).status_code == 200


async def _limit_memory(broker: Broker, more_bytes: int) -> None:
    """Set maxmemory to the memory in use plus ``more_bytes``."""
    async with broker.client() as client:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", used + more_bytes)


async def _all_metrics(system: System) -> str:
    return (await system.http.get(f"{system.url}/metrics")).text
