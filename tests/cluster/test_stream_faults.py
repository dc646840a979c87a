"""Faults of single nodes during live streams: each token arrives once, in order, and each stream has one ending."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

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
    try:
        await system.start()
        yield system
    finally:
        await system.stop()


async def live_streams(system: ClusterSystem) -> tuple[dict[SseConnection, Frame], asyncio.Event]:
    """Return streams of all nodes, each with its first token, and an event that lets them go on."""
    gate = asyncio.Event()
    system.fake.play("long", Answer(deltas=WORDS, delay_s=PACE_S, gate=gate, gate_after=10))
    live = [await system.stream("long", gateway=number % 2) for number in range(LIVE)]
    return {connection: await connection.next("token") for connection in live}, gate


@dataclass
class Rest:
    """The rest of a stream. ``longest_s``: its longest pause."""

    frames: list[Frame] = field(default_factory=list)
    longest_s: float = 0.0


async def rest_of(system: ClusterSystem, connection: SseConnection) -> Rest:
    """Read the rest of a stream. Connections that end early are opened again where they ended."""
    rest, gateway, at = Rest(), 0, time.monotonic()
    while True:
        try:
            async with connection:
                async for frame in connection.frames():
                    rest.frames.append(frame)
                    rest.longest_s, at = max(rest.longest_s, time.monotonic() - at), time.monotonic()
        except (Broken, OSError):
            gateway = 1 - gateway
            last = next(frame.id for frame in reversed(rest.frames) if frame.id is not None)
            connection = await system.read(connection.stream_id, last, gateway=gateway)
        else:
            return rest


def calls_of(system: ClusterSystem) -> int:
    return len([call for call in system.fake.calls if call.model == "long"])


async def check(system: ClusterSystem, live: dict[SseConnection, Frame], calls_before: int) -> list[Rest]:
    """Check that every stream gets each token once, in order, and one ending, from one call of its provider."""
    rests = await asyncio.gather(*(rest_of(system, each) for each in live))
    for (connection, first), rest in zip(live.items(), rests, strict=True):
        frames = rest.frames
        assert not any(frame.data.get("reset") for frame in frames)
        assert text_of([first, *frames]) == "".join(WORDS)
        assert [frame.data["finish_reason"] for frame in frames if frame.event == "done"] == ["stop"]
        assert (await system.status(connection.stream_id))["text"] == "".join(WORDS)
    assert calls_of(system) == calls_before + LIVE
    return rests


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("of_desk", [False, True])
async def test_a_master_that_dies_loses_no_token(system: ClusterSystem, of_desk: bool, fault: str) -> None:
    cluster, calls = system.cluster, calls_of(system)
    live, gate = await live_streams(system)
    desk = await cluster.owner(DESK)
    needed = {desk, await cluster.owner(principal_streams_key(ANONYMOUS.id))}
    master = desk if of_desk else next(node for node in await cluster.masters() if node not in needed)
    owned = [await cluster.owner(state_key(each.stream_id)) is master for each in live]
    if fault == "killed":
        await cluster.kill(master)
    else:
        master.freeze()
    try:
        gate.set()
        checking = asyncio.create_task(check(system, live, calls))
        if not of_desk:  # new streams go to the other nodes
            urls = [f"{gateway.url}/chat" for gateway in system.gateways] * 6
            answers = await asyncio.gather(*(system.http.post(url, json=ask("echo")) for url in urls))
            assert {answer.status_code for answer in answers} == {202}
            for gateway in system.gateways:
                assert (await system.http.get(f"{gateway.url}/readyz")).status_code == 200
        rests = await checking
        pauses = {True: 0.0, False: 0.0}
        for rest, is_own in zip(rests, owned, strict=True):
            pauses[is_own] = max(pauses[is_own], rest.longest_s)
        assert pauses[False] < pauses[True] / 2
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
    live, gate = await live_streams(system)
    gate.set()
    checking = asyncio.create_task(check(system, live, calls))
    masters = await cluster.masters()
    slots = await cluster.slots_of(masters[0], [DESK, *(state_key(each.stream_id) for each in live)])
    for target in (masters[1], masters[0]):
        await cluster.move_slots(slots, target)
    await checking


async def test_slots_move_at_once_under_streams(system: ClusterSystem) -> None:
    cluster, calls = system.cluster, calls_of(system)
    live, gate = await live_streams(system)
    gate.set()
    checking = asyncio.create_task(check(system, live, calls))
    masters = await cluster.masters()
    slots = await cluster.slots_of(masters[0], [DESK, *(state_key(each.stream_id) for each in live)])
    for target in (masters[1], masters[0]):
        await cluster.move_range(min(slots), max(slots), target)
    await checking
