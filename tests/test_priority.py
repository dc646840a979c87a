"""Priority: a busy worker takes interactive streams first, from every API and with every kind of credentials."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.credentials import JWT_SETTINGS, bearer, boot_credentials, make_key, token
from tests.fakes.answer import Answer
from tests.system import System, ask

HEADER = "X-Headrace-Priority"
PEOPLE = bearer(token("ann", scope="chat read cancel admin"))


@pytest.fixture
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Yield a system with one slot, which a stream holds until the gate opens."""
    system = System(
        tmp_path_factory.mktemp("system"),
        providers=("openai",),
        concurrency=1,
        auth="jwt,keys",
        gateways=1,
        workers=1,
        credentials=boot_credentials(),
        **JWT_SETTINGS,
    )
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def post(system: System, model: str, headers: dict[str, str], **body: Any) -> Any:
    answer = await system.http.post(f"{system.url}/chat", json=ask(model, **body), headers=headers)
    return answer.json()


async def test_interactive_streams_go_first(system: System) -> None:
    gate = asyncio.Event()
    system.fake.play("first", Answer(gate=gate))
    order = ["person", "header", "key", "nightly"]
    for name in order:
        system.fake.play(name, Answer())
    batch_key = bearer(await make_key(system, "jobs", "--priority", "batch"))
    await post(system, "first", PEOPLE)
    await system.fake.wait_calls(1)

    nightly = await post(system, "nightly", PEOPLE, priority="batch")
    key = await post(system, "key", batch_key)
    body = {"model": "openai/header", "messages": [{"role": "user", "content": "hi"}], "service_tier": "flex"}
    url = f"{system.url}/v1/chat/completions"
    waiting = asyncio.create_task(system.http.post(url, json=body, headers=PEOPLE | {HEADER: "batch"}))
    await system.eventually(lambda: _waiting(system, 3))
    person = await post(system, "person", PEOPLE)
    await system.eventually(lambda: _waiting(system, 4))

    overview = (await system.http.get(f"{system.url}/ops/overview", headers=PEOPLE)).json()
    assert (overview["waiting"], overview["waiting_batch"]) == (4, 3)
    classes = {row["model"]: row["priority"] for row in overview["streams"]}
    assert classes == dict.fromkeys(order[1:], "batch") | {"first": "interactive", "person": "interactive"}
    places = {each["stream_id"]: await _place(system, each["stream_id"]) for each in (person, key, nightly)}
    assert places[person["stream_id"]] == 1
    assert sorted(places.values()) in ([1, 2, 3], [1, 2, 4], [1, 3, 4])  # a turn each: two owners, one with two
    metrics = (await system.http.get(f"{system.url}/metrics", headers=PEOPLE)).text
    assert "headrace_queue_batch" in metrics

    gate.set()
    await system.fake.wait_calls(5)
    await waiting
    taken = [call.model for call in system.fake.calls]
    assert taken[:2] == ["first", "person"]
    assert taken.index("nightly") < taken.index("header"), "streams of one owner keep their order"
    assert next(call.request["service_tier"] for call in system.fake.calls if call.model == "header") == "flex"
    ended = await system.eventually(lambda: _ended(system, 5))
    assert {line["model"]: line["priority"] for line in ended} == classes


async def test_a_wrong_class_is_refused(system: System) -> None:
    batch_key = bearer(await make_key(system, "jobs", "--priority", "batch"))
    refused = await post(system, "echo", batch_key, priority="interactive")
    assert refused["error"]["code"] == "field_not_allowed"
    refused = await post(system, "echo", PEOPLE | {HEADER: "urgent"})
    assert HEADER in refused["error"]["message"]
    refused = await post(system, "echo", PEOPLE, priority="urgent")
    assert "priority" in refused["error"]["message"]


async def _waiting(system: System, count: int) -> bool:
    overview = await system.http.get(f"{system.url}/ops/overview", headers=PEOPLE)
    return bool(overview.json()["waiting"] == count)


async def _place(system: System, stream_id: str) -> int:
    row = await system.http.get(f"{system.url}/ops/streams/{stream_id}", headers=PEOPLE)
    place: int = row.json()["place"]
    return place


async def _ended(system: System, count: int) -> list[dict[str, Any]] | None:
    """Return the log lines of ended streams. A worker writes one after the client has the last event."""
    log = "".join(worker.log.read_text() for worker in system.workers)
    ended = [
        json.loads(line) for line in log.splitlines(keepends=True) if "stream ended" in line and line[-1] == "\n"
    ]
    return ended if len(ended) == count else None
