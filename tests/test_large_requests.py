"""Requests of megabytes reach the provider whole, from every dialect, also if a worker or Redis was lost."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import StartSystem
from tests.fakes.answer import Answer
from tests.sse_client import text_of
from tests.system import System, ask

#: Text that differs everywhere, so that a missing, doubled or displaced piece shows.
TEXT = " ".join(map(str, range(200_000)))
IMAGE = f"data:image/png;base64,{base64.b64encode(os.urandom(3_000_000)).decode()}"
KEY = "ab" * 32


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sealed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    system = System(tmp_path_factory.mktemp("sealed"), gateways=1, workers=1, providers=("openai",), content_keys=KEY)
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


USER = {"role": "user", "content": TEXT}
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}
PART = {"type": "text", "text": TEXT}
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "native": ("/chat", ask("large", TEXT), TEXT),
    "native, an image": ("/chat", ask("large") | {"messages": [PICTURE]}, IMAGE),
    "Chat Completions": ("/v1/chat/completions", {"model": "openai/large", "messages": [USER]}, TEXT),
    "Messages": ("/v1/messages", {"model": "openai/large", "max_tokens": 9, "messages": [USER]}, TEXT),
    "Responses": ("/v1/responses", {"model": "openai/large", "input": TEXT}, TEXT),
    "AI SDK": (
        "/api/chat",
        {"id": "c", "model": "openai/large", "messages": [{"id": "m", "role": "user", "parts": [PART]}]},
        TEXT,
    ),
}


@pytest.mark.parametrize(("path", "body", "content"), REQUESTS.values(), ids=REQUESTS)
async def test_a_large_request_reaches_the_provider_whole(
    sealed: System, path: str, body: dict[str, Any], content: str
) -> None:
    sealed.fake.play("large", Answer())
    before = len(sealed.fake.calls)
    answer = await sealed.http.post(sealed.url + path, json=body)
    assert answer.status_code in {200, 202}, answer.text
    (*_, call) = await sealed.fake.wait_calls(before + 1)
    sent = call.request["messages"][-1]["content"]
    assert (sent if isinstance(sent, str) else sent[0].get("text") or sent[0]["image_url"]["url"]) == content


async def test_a_large_response_can_be_continued(sealed: System) -> None:
    sealed.fake.play("large", Answer(deltas=["first"]))
    first = await sealed.http.post(f"{sealed.url}/v1/responses", json={"model": "openai/large", "input": TEXT})
    assert first.status_code == 200, first.text
    before = len(sealed.fake.calls)
    more = {"model": "openai/large", "input": "more", "previous_response_id": first.json()["id"]}
    second = await sealed.http.post(f"{sealed.url}/v1/responses", json=more)
    assert second.status_code == 200, second.text
    (*_, call) = await sealed.fake.wait_calls(before + 1)
    assert [m["content"] for m in call.request["messages"]] == [TEXT, "first", "more"]


async def test_a_large_request_survives_a_lost_redis_and_a_lost_worker(start_system: StartSystem) -> None:
    """The worker writes the request again into the Redis that lost it, and another worker takes it from there."""
    system = await start_system(gateways=1, workers=2, lease_s=4)
    gate = asyncio.Event()
    system.fake.play("large", Answer(deltas=["one ", "two"], gate=gate, gate_after=1))
    async with await system.stream("large", TEXT) as connection:
        await connection.next("token")
        holder = (await system.field(connection.stream_id, "holder") or "").split(".")[0]
        async with system.broker.client() as client:
            await client.flushdb()

        async def restored() -> bool:
            return bool(await system.field(connection.stream_id, "request_bytes"))

        await system.eventually(restored)
        worker = next(each for each in system.workers if f'"worker":"{holder}"' in each.log.read_text())
        worker.signal(signal.SIGKILL)
        first, second = await system.fake.wait_calls(2, timeout_s=30)
        gate.set()
        frames = await connection.rest()
    assert first.request["messages"] == second.request["messages"] == [USER]
    last_start = max(i for i, frame in enumerate(frames) if frame.event == "start")
    assert text_of(frames[last_start:]) == "one two"
    async with system.broker.client() as client:
        assert await client.keys("hr:*:request") == []
