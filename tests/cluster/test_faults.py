"""Faults and administration of a cluster under load: every command is answered or fails with an error that passes,
streams of other nodes do not wait, and no message is missed unnoticed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from shared.broker.cluster.cluster import Cluster as Connections
from tests.broker_cluster import ENGINES, VALKEY, Cluster, Node, let_fail_over
from tests.cluster.load import Load, Stream

#: The shortest outage of a killed master: much longer than a pause of a busy machine.
_OUTAGE_S: Final = 3


@pytest.fixture(scope="module", params=ENGINES)
async def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Yield three masters and their replicas; a test may leave them in other roles."""
    servers = Cluster(tmp_path_factory.mktemp("cluster"), replicas=1, binary=ENGINES[request.param])
    await servers.start()
    yield servers
    await servers.stop()


@pytest.fixture
async def load(cluster: Cluster) -> AsyncIterator[Load]:
    # Long timeouts show more clearly which loop waits for which node.
    connections = Connections(cluster.url, loop_timeout_s=3)
    async with Load(connections) as running:
        yield running
        assert not running.errors
        assert not running.missed()
    await connections.aclose()


async def split(cluster: Cluster, load: Load) -> tuple[Node, list[Stream], list[Stream]]:
    """Return a master, its streams, and the other streams."""
    master = await cluster.owner(load.streams[0].slot)
    owners = [await cluster.owner(stream.slot) for stream in load.streams]
    own = [stream for stream, owner in zip(load.streams, owners, strict=True) if owner is master]
    return master, own, [stream for stream in load.streams if stream not in own]


async def test_a_killed_master_stops_only_its_own_streams(cluster: Cluster, load: Load) -> None:
    master, own, others = await split(cluster, load)
    replica = await cluster.replica_of(master)
    await let_fail_over(replica, is_allowed=False)
    await cluster.kill(master)
    await asyncio.sleep(_OUTAGE_S)
    await let_fail_over(replica)
    await load.all_go_on()
    assert load.longest_s(others) < load.longest_s(own) / 2
    await cluster.restart(master)
    await cluster.settled()


async def test_a_frozen_master_stops_only_its_own_streams(cluster: Cluster, load: Load) -> None:
    master, own, others = await split(cluster, load)
    master.freeze()
    try:
        await load.all_go_on()
        assert load.longest_s(others) < load.longest_s(own) / 2
    finally:
        master.thaw()
    await cluster.settled()
    await load.all_go_on()


async def test_a_failover_by_hand_loses_no_stream(cluster: Cluster, load: Load) -> None:
    master, _, _ = await split(cluster, load)
    await cluster.fail_over(await cluster.replica_of(master), "")
    await load.all_go_on()


async def test_slots_move_under_load(cluster: Cluster, load: Load) -> None:
    master, own, others = await split(cluster, load)
    target = await cluster.owner(others[0].slot)
    for owner in (target, master):
        await cluster.move_slots([stream.slot for stream in own], owner)
        await load.all_go_on()


async def test_slots_move_at_once_under_load(cluster: Cluster, load: Load) -> None:
    if cluster.binary != VALKEY:
        pytest.skip("only Valkey moves slots at once")
    master, own, others = await split(cluster, load)
    target = await cluster.owner(others[0].slot)
    slots = [stream.slot for stream in own]
    for owner in (target, master):
        await cluster.move_at_once(range(min(slots), max(slots) + 1), owner)
        await load.all_go_on()


async def test_a_node_is_added_and_drained_under_load(cluster: Cluster, load: Load) -> None:
    master, own, _ = await split(cluster, load)
    node = await cluster.add_node()
    await cluster.move_slots([stream.slot for stream in own[::4]], node)
    await load.all_go_on()
    assert any(each.port == node.port for each in load.servers.nodes)
    await cluster.drain(node, master)
    await load.all_go_on()
    assert all(each.port != node.port for each in load.servers.nodes)


async def test_a_master_that_comes_back_empty_is_used_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, masters=2)
    await cluster.start()
    connections = Connections(cluster.url)
    try:
        async with Load(connections) as load:
            master, own, others = await split(cluster, load)
            await cluster.kill(master)
            answered = [stream.answered for stream in others]
            async with asyncio.timeout(40):  # the others go on without it
                while not all(s.answered > n + 3 for s, n in zip(others, answered, strict=True)):
                    await asyncio.sleep(0.02)
            await cluster.restart(master)
            await load.all_go_on()
            assert load.longest_s(others) < load.longest_s(own) / 2
            assert not load.errors
            assert not load.missed()
    finally:
        await connections.aclose()
        await cluster.stop()
