"""Faults of single nodes during live streams: each token arrives once, in order, and each stream has one ending."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.auth.principal import ANONYMOUS
from shared.broker.keys import DESK, principal_streams_key, state_key
from tests.broker_cluster import VALKEY, Cluster
from tests.cluster.system import ClusterSystem
from tests.fakes.answer import Answer
from tests.sse_client import Broken, Frame, SseConnection, text_of
from tests.system import ask

WORDS = [f"w{i} " for i in range(120)]
PACE_S = 0.05
LIVE = 20


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterSystem]:
    folder = tmp_path_factory.mktemp("system")
    cluster = Cluster(folder / "cluster", replicas=1, binary=VALKEY)
    system = ClusterSystem(folder, cluster, providers=("openai",))
    system.fake.play("long", Answer(deltas=WORDS, delay_s=PACE_S))
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def live_streams(system: ClusterSystem) -> dict[SseConnection, Frame]:
    """Return streams of all nodes, each with its first token."""
    live = [await system.stream("long", gateway=number % 2) for number in range(LIVE)]
    return {connection: await connection.next("token") for connection in live}


async def rest_of(system: ClusterSystem, connection: SseConnection) -> list[Frame]:
    """Return the rest of a stream. Connections that end early are opened again where they ended."""
    frames = list[Frame]()
    gateway = 0
    while True:
        try:
            async with connection:
                async for frame in connection.frames():
                    frames.append(frame)
        except (Broken, OSError):
            gateway = 1 - gateway
            last = next(frame.id for frame in reversed(frames) if frame.id is not None)
            connection = await system.read(connection.stream_id, last, gateway=gateway)
        else:
            return frames


def calls_of(system: ClusterSystem) -> int:
    return len([call for call in system.fake.calls if call.model == "long"])


async def check(system: ClusterSystem, live: dict[SseConnection, Frame], calls_before: int) -> None:
    """Check that every stream gets each token once, in order, and one ending, from one call of its provider."""
    rests = await asyncio.gather(*(rest_of(system, each) for each in live))
    for (connection, first), frames in zip(live.items(), rests, strict=True):
        assert not any(frame.data.get("reset") for frame in frames)
        assert text_of([first, *frames]) == "".join(WORDS)
        assert [frame.data["finish_reason"] for frame in frames if frame.event == "done"] == ["stop"]
        assert (await system.status(connection.stream_id))["text"] == "".join(WORDS)
    assert calls_of(system) == calls_before + LIVE


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("of_desk", [False, True])
async def test_a_master_that_dies_loses_no_token(system: ClusterSystem, of_desk: bool, fault: str) -> None:
    cluster, calls = system.cluster, calls_of(system)
    live = await live_streams(system)
    desk = await cluster.owner(DESK)
    needed = {desk, await cluster.owner(principal_streams_key(ANONYMOUS.id))}
    master = desk if of_desk else next(node for node in await cluster.masters() if node not in needed)
    if fault == "killed":
        await cluster.kill(master)
    else:
        master.freeze()
    try:
        if not of_desk:  # new streams go to the other nodes
            urls = [f"{gateway.url}/chat" for gateway in system.gateways] * 6
            answers = await asyncio.gather(*(system.http.post(url, json=ask("echo")) for url in urls))
            assert {answer.status_code for answer in answers} == {202}
        await check(system, live, calls)
    finally:
        if fault == "killed":
            await cluster.restart(master)
        else:
            master.thaw()
    await cluster.settled()
    answered = await system.stream("long")  # all of it works again
    assert text_of(await answered.rest()) == "".join(WORDS)


async def test_slots_move_key_by_key_under_streams(system: ClusterSystem) -> None:
    cluster, calls = system.cluster, calls_of(system)
    live = await live_streams(system)
    checking = asyncio.create_task(check(system, live, calls))
    masters = await cluster.masters()
    slots = await cluster.slots_of(masters[0], [DESK, *(state_key(each.stream_id) for each in live)])
    for target in (masters[1], masters[0]):
        await cluster.move_slots(slots, target)
    await checking


async def test_slots_move_at_once_under_streams(system: ClusterSystem) -> None:
    cluster, calls = system.cluster, calls_of(system)
    live = await live_streams(system)
    checking = asyncio.create_task(check(system, live, calls))
    masters = await cluster.masters()
    slots = await cluster.slots_of(masters[0], [DESK, *(state_key(each.stream_id) for each in live)])
    for target in (masters[1], masters[0]):
        await cluster.move_range(min(slots), max(slots), target)
    await checking
