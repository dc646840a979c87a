"""Faults and administration of single nodes during live streams: each token arrives once, in order, and each stream
has one ending.

``HEADRACE_NIGHTLY=1`` makes it 200 streams, moves every slot, and prints the pauses (with ``-s``).
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from gateway.auth.principal import ANONYMOUS
from shared.broker.cluster.slots import slot_of
from shared.broker.keys import DESK, QUEUE, principal_streams_key, state_key
from tests.broker_cluster import VALKEY, Cluster, Node, is_master, is_synchronized, let_fail_over, serves, until
from tests.cluster.live import Live, Reader
from tests.cluster.system import ClusterSystem
from tests.system import ask

NIGHTLY = bool(os.environ.get("HEADRACE_NIGHTLY"))
COUNT, PACE_S = (200, 0.2) if NIGHTLY else (20, 0.05)
#: The shortest outage of a node: more than twice as long as all streams pause on a busy machine.
OUTAGE_S = 4.0

pytestmark = pytest.mark.timeout(1800 if NIGHTLY else 120)


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


@pytest.fixture
async def live(system: ClusterSystem) -> AsyncIterator[Live]:
    """Yield streams of all nodes. After the test they must be whole, and new ones must work."""
    async with Live(system, COUNT, PACE_S) as running:
        yield running
        await system.cluster.settled()
        await running.all_go_on()
        await running.check()
    assert (await (await system.stream("echo")).rest())[-1].data["finish_reason"] == "stop"


async def bucket_or_desk(cluster: Cluster, *, of_desk: bool) -> Node:
    """Return the master of the desk, or one that neither the desk nor a list of streams needs."""
    desk = await cluster.owner(QUEUE)
    needed = {desk, await cluster.owner(principal_streams_key(ANONYMOUS.id))}
    return desk if of_desk else next(node for node in await cluster.masters() if node not in needed)


def check_pauses(live: Live, own: Sequence[Reader], what: str, outage_s: float) -> None:
    """Streams of other nodes must pause for less than half of the time in which the node is away."""
    others = [reader for reader in live.readers if reader not in own]
    print(
        f"{what}: away for {outage_s:.2f} s; own {live.longest_s(own):.2f} s, others {live.longest_s(others):.2f} s"
    )
    assert live.longest_s(others) < outage_s / 2


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("of_desk", [False, True])
async def test_a_master_that_dies_loses_no_token(
    system: ClusterSystem, live: Live, of_desk: bool, fault: str
) -> None:
    cluster = system.cluster
    master = await bucket_or_desk(cluster, of_desk=of_desk)
    replica, own = await cluster.replica_of(master), await live.of(master)
    await let_fail_over(replica, is_allowed=False)
    began = time.monotonic()
    if fault == "killed":
        await cluster.kill(master)
    else:
        master.freeze()
    try:
        if not of_desk:  # new streams go to the other nodes
            urls = [f"{gateway.url}/chat" for gateway in system.gateways] * 6
            answers = await asyncio.gather(*(system.http.post(url, json=ask("echo")) for url in urls))
            assert {answer.status_code for answer in answers} == {202}
            for gateway in system.gateways:
                assert (await system.http.get(f"{gateway.url}/readyz")).status_code == 200
        await asyncio.sleep(began + OUTAGE_S - time.monotonic())
        await let_fail_over(replica)
        await until(partial(is_master, replica), within_s=60)
        outage_s = time.monotonic() - began
        await live.all_go_on()
        check_pauses(live, own, f"{'desk' if of_desk else 'bucket'} {fault}", outage_s)
    finally:
        await let_fail_over(replica)
        if fault == "killed":
            await cluster.restart(master)
        else:
            master.thaw()


@pytest.mark.parametrize("of_desk", [False, True])
async def test_a_master_that_comes_back_empty_loses_no_token(
    system: ClusterSystem, live: Live, of_desk: bool
) -> None:
    cluster = system.cluster
    master = await bucket_or_desk(cluster, of_desk=of_desk)
    replica = await cluster.replica_of(master)
    await let_fail_over(replica, is_allowed=False)
    own = await live.of(master)
    began = time.monotonic()
    await cluster.kill(master)
    await asyncio.sleep(OUTAGE_S)
    await cluster.restart(master)
    assert await master.run_command("DBSIZE") == 0
    await until(partial(serves, master))
    outage_s = time.monotonic() - began
    await live.all_go_on()
    assert await cluster.owner(next(iter(await cluster.owned_by(master)))) is master
    check_pauses(live, own, f"{'desk' if of_desk else 'bucket'} back empty", outage_s)
    await let_fail_over(replica)
    await until(partial(is_synchronized, replica))


async def slots_to_move(cluster: Cluster, live: Live) -> list[tuple[Node, list[int]]]:
    """Return the masters with slots of theirs: all, or at least those of the desk and the streams."""
    keys = [DESK, *(state_key(reader.stream_id) for reader in live.readers)]
    return [
        (master, sorted(await cluster.owned_by(master)) if NIGHTLY else await cluster.slots_of(master, keys))
        for master in await cluster.masters()
    ]


@pytest.mark.parametrize("how", ["key by key", "at once"])
async def test_slots_move_under_streams(system: ClusterSystem, live: Live, how: str) -> None:
    """Those of each master move to the next."""
    shares = await slots_to_move(system.cluster, live)
    targets = [master for master, _ in shares[1:] + shares[:1]]
    began = time.monotonic()
    for (_, slots), target in zip(shares, targets, strict=True):
        if how == "at once":
            await system.cluster.move_at_once(slots, target)
        else:
            await system.cluster.move_slots(slots, target)
    moved = sum(len(slots) for _, slots in shares)
    print(f"{moved} slots {how}: in {time.monotonic() - began:.1f} s; longest pause {live.longest_s():.2f} s")
    assert moved == 16384 or not NIGHTLY


async def test_a_node_is_added_and_drained_under_streams(system: ClusterSystem, live: Live) -> None:
    cluster = system.cluster
    shares = await slots_to_move(cluster, live)
    node = await cluster.add_node()
    desk = slot_of(DESK)
    for _, slots in shares:
        await cluster.move_slots(sorted({*slots[::4], *({desk} & set(slots))}), node)
    await live.all_go_on()
    assert await live.of(node)
    print(f"a node added: longest pause {live.longest_s():.2f} s")
    live.reset()
    await cluster.drain(node, shares[0][0])
    await live.all_go_on()
    print(f"the node drained: longest pause {live.longest_s():.2f} s")
