"""Requests with the same idempotency key start one generation."""

import asyncio

from tests.fakes.answer import Answer
from tests.sse_client import text_of
from tests.system import System, ask

WORDS = [f"w{i} " for i in range(10)]


async def test_fifty_concurrent_requests_with_one_key_start_one_generation(system: System) -> None:
    system.fake.play("fifty", Answer(deltas=WORDS, delay_s=0.01))
    key = {"Idempotency-Key": "fifty at once"}
    urls = [f"{gateway.url}/chat" for gateway in system.gateways] * 25
    answers = await asyncio.gather(*(system.http.post(url, json=ask("fifty"), headers=key) for url in urls))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["stream_id"] for answer in answers}) == 1
    status = await system.ended(answers[0].json()["stream_id"])
    assert status["text"] == "".join(WORDS)
    assert len([call for call in system.fake.calls if call.model == "fifty"]) == 1


async def test_a_repeated_post_attaches_to_the_same_stream(system: System) -> None:
    """Fetch-based clients repeat the POST after every break, with the last id that they received."""
    gate = asyncio.Event()
    system.fake.play("re-post", Answer(deltas=WORDS, gate=gate, gate_after=4))
    key = {"Idempotency-Key": "re-post"}
    async with await system.stream("re-post", headers=key) as connection:
        seen = list(await connection.take(2))
    gate.set()
    again = {**key, "Last-Event-ID": seen[-1].at}
    async with await system.stream("re-post", headers=again, gateway=1) as second:
        seen += await second.rest()
    assert second.stream_id == connection.stream_id
    assert text_of(seen) == "".join(WORDS)
    assert len([call for call in system.fake.calls if call.model == "re-post"]) == 1


async def test_another_body_is_a_conflict(system: System) -> None:
    key = {"Idempotency-Key": "conflict"}
    first = await system.http.post(f"{system.url}/chat", json=ask("echo", "one"), headers=key)
    other = await system.http.post(f"{system.gateways[1].url}/chat", json=ask("echo", "two"), headers=key)
    assert (first.status_code, other.status_code) == (202, 409)
    assert other.json()["error"]["code"] == "idempotency_conflict"


async def test_the_key_outlives_a_delete(system: System) -> None:
    key = {"Idempotency-Key": "deleted"}
    system.fake.play("deleted", Answer())
    first = await system.http.post(f"{system.url}/chat", json=ask("deleted"), headers=key)
    await system.ended(first.json()["stream_id"])
    await system.http.delete(f"{system.url}/chat/{first.json()['stream_id']}")
    again = await system.http.post(f"{system.url}/chat", json=ask("deleted"), headers=key)
    assert again.status_code == 410
    assert len([call for call in system.fake.calls if call.model == "deleted"]) == 1


async def test_a_retry_queues_a_lost_job_again(system: System) -> None:
    """The first request may have created the stream and lost its job."""
    key = {"Idempotency-Key": "lost job"}
    gate = asyncio.Event()
    system.fake.play("lost-job", Answer(deltas=WORDS, gate=gate, gate_after=1))
    first = await system.http.post(f"{system.url}/chat", json=ask("lost-job"), headers=key)
    again = await system.http.post(f"{system.url}/chat", json=ask("lost-job"), headers=key)
    gate.set()
    assert first.json()["stream_id"] == again.json()["stream_id"]
    assert (await system.ended(first.json()["stream_id"]))["text"] == "".join(WORDS)
    assert len([call for call in system.fake.calls if call.model == "lost-job"]) == 1
