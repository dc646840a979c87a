"""Streams of real gateways and workers on a cluster."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from tests.broker_cluster import Cluster
from tests.cluster.system import ClusterSystem
from tests.fakes.answer import Answer
from tests.sse_client import text_of
from tests.system import ask

WORDS = [f"w{i} " for i in range(60)]
AT_ONCE = 8
IN_A_ROW = int(os.environ.get("HEADRACE_IN_A_ROW", "300"))

pytestmark = pytest.mark.timeout(120 + IN_A_ROW // 10)


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterSystem]:
    """Yield two gateways and two workers on three masters and their replicas."""
    folder = tmp_path_factory.mktemp("system")
    cluster = Cluster(folder / "cluster", replicas=1)
    system = ClusterSystem(folder, cluster, providers=("openai",), concurrent_streams=AT_ONCE)
    try:
        await system.start()
        yield system
        assert await system.keys_without_expiry() == []
    finally:
        await system.stop()


async def test_an_answer_is_streamed_and_resumed_through_another_gateway(system: ClusterSystem) -> None:
    system.fake.play("whole", Answer(deltas=WORDS, delay_s=0.02))
    for number in range(6):  # in several buckets
        async with await system.stream("whole", gateway=number % 2) as first:
            heard = [await first.next("token") for _ in range(10)]
        async with await system.read(first.stream_id, heard[-1].id, gateway=1 - number % 2) as second:
            frames = await second.rest()
        assert text_of([*heard, *frames]) == "".join(WORDS)
        assert frames[-1].data["finish_reason"] == "stop"
        assert (await system.status(first.stream_id))["text"] == "".join(WORDS)


async def test_a_key_starts_one_answer_over_all_gateways(system: ClusterSystem) -> None:
    system.fake.play("keyed", Answer(deltas=WORDS))
    urls = [f"{gateway.url}/chat" for gateway in system.gateways] * 5
    for number in range(3):
        key = {"Idempotency-Key": f"cluster {number}"}
        answers = await asyncio.gather(*(system.http.post(url, json=ask("keyed"), headers=key) for url in urls))
        assert {answer.status_code for answer in answers} == {202}
        (stream_id,) = {answer.json()["stream_id"] for answer in answers}
        assert (await system.ended(stream_id))["text"] == "".join(WORDS)
    assert len([call for call in system.fake.calls if call.model == "keyed"]) == 3


async def test_a_cancelled_stream_ends_at_once(system: ClusterSystem) -> None:
    gate = asyncio.Event()
    system.fake.play("cancelled", Answer(deltas=WORDS, gate=gate, gate_after=5))
    for number in range(3):
        connection = await system.stream("cancelled", gateway=number % 2)
        await connection.next("token")
        answer = await system.http.post(f"{system.gateways[1 - number % 2].url}/chat/{connection.stream_id}/cancel")
        assert answer.status_code < 300
        assert (await connection.rest())[-1].data["finish_reason"] == "cancelled"
    gate.set()


async def test_streams_are_listed_and_a_deleted_one_is_gone(system: ClusterSystem) -> None:
    system.fake.play("listed", Answer(deltas=WORDS))
    ids = [await system.post("listed", gateway=number % 2) for number in range(6)]
    for stream_id in ids:
        await system.ended(stream_id)
    listed = (await system.http.get(f"{system.url}/chat?limit=100")).json()["streams"]
    assert [each["stream_id"] for each in listed][: len(ids)] == ids[::-1]
    for stream_id in ids[:3]:
        assert (await system.http.delete(f"{system.url}/chat/{stream_id}")).status_code == 204
        assert (await system.http.get(f"{system.gateways[1].url}/chat/{stream_id}")).status_code == 410
    listed = (await system.http.get(f"{system.url}/chat?limit=100")).json()["streams"]
    assert [each["stream_id"] for each in listed][: len(ids) - 3] == ids[:2:-1]


async def test_a_limit_is_exact_over_all_gateways(system: ClusterSystem) -> None:
    gate = asyncio.Event()
    system.fake.play("limited", Answer(deltas=WORDS, gate=gate))
    for _ in range(2):  # once more, with all slots given back
        gate.clear()
        urls = [f"{gateway.url}/chat" for gateway in system.gateways] * AT_ONCE
        answers = await asyncio.gather(*(system.http.post(url, json=ask("limited")) for url in urls))
        accepted = [answer.json()["stream_id"] for answer in answers if answer.status_code == 202]
        assert len(accepted) == AT_ONCE
        assert {answer.status_code for answer in answers} == {202, 429}
        gate.set()
        for stream_id in accepted:
            assert (await system.ended(stream_id))["finish_reason"] == "stop"


async def test_requests_in_a_row_never_find_the_last_slot_taken(system: ClusterSystem) -> None:
    """A client that has seen `done` sends its next request, before the worker may have settled the last one."""
    gate = asyncio.Event()
    system.fake.play("held", Answer(deltas=WORDS, gate=gate))
    held = [await system.post("held", gateway=number % 2) for number in range(AT_ONCE - 1)]
    for number in range(IN_A_ROW):
        async with await system.stream("echo", gateway=number % 2) as connection:
            assert connection.status == 200, f"request {number + 1}"
            assert (await connection.rest())[-1].event == "done"
    gate.set()
    for stream_id in held:
        await system.ended(stream_id)


async def test_the_overview_shows_streams_of_all_nodes(system: ClusterSystem) -> None:
    gate = asyncio.Event()
    system.fake.play("seen", Answer(deltas=WORDS, gate=gate, gate_after=5))
    ids = {await system.post("seen", gateway=number % 2) for number in range(6)}

    async def are_seen() -> bool:
        overview = (await system.http.get(f"{system.url}/ops/overview")).json()
        return ids <= {each["stream_id"] for each in overview["streams"]}

    await system.eventually(are_seen)
    gate.set()
    for stream_id in ids:
        await system.ended(stream_id)
