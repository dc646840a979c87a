"""The check of a cluster names the problem and the node."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from shared.broker.cluster.cluster import Cluster as Connections
from shared.broker.cluster.fitness import check_cluster
from shared.broker.trouble import Reason
from shared.errors import BrokerFull, BrokerMisconfigured, BrokerUnavailable
from tests.broker import Broker
from tests.broker_cluster import Cluster, until
from tests.ports import free_port
from tests.test_redis_troubles import documented_rights

RIGHTS = ("~hr:*", "~arq:*", "&hr:*", "+@all")


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    users = ("--user", "headrace", "on", ">word", *RIGHTS)
    patient = ("--cluster-node-timeout", "5000")  # no failover after a pause of one node
    servers = Cluster(tmp_path_factory.mktemp("cluster"), *users, *patient, masters=2, replicas=1)
    await servers.start()
    for node in servers.nodes:  # a new replica is not yet in the map of each
        await until(partial(is_fit, f"redis+cluster://127.0.0.1:{node.port}"))
    yield servers
    await servers.stop()


async def check(url: str) -> list[str]:
    connections = Connections(url)
    try:
        return await check_cluster(connections)
    finally:
        await connections.aclose()


async def is_fit(url: str) -> bool:
    return await check(url) == []


async def refusal(url: str) -> BrokerUnavailable:
    with pytest.raises(BrokerUnavailable) as caught:
        await check(url)
    return caught.value


async def test_a_good_cluster_is_fit_also_by_the_address_of_a_replica(cluster: Cluster) -> None:
    await until(partial(is_fit, f"redis+cluster://headrace:word@127.0.0.1:{cluster.nodes[-1].port}"))


async def test_one_master_that_evicts_or_is_full_is_named(cluster: Cluster) -> None:
    node = cluster.nodes[1]
    await node.run_command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    error = await refusal(cluster.url)
    assert isinstance(error, BrokerMisconfigured)
    assert error.reason == Reason.EVICTION
    assert f"127.0.0.1:{node.port}" in error.detail
    await node.run_command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await node.run_command("CONFIG", "SET", "maxmemory", "1")
    assert isinstance(await refusal(cluster.url), BrokerFull)
    await node.run_command("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize(
    ("right", "missing"),
    [("-xadd", "XADD"), ("-cluster", "CLUSTER"), ("-asking", "ASKING"), ("resetchannels", "&hr:*")],
)
async def test_a_right_that_one_master_lacks_is_named(cluster: Cluster, right: str, missing: str) -> None:
    url = cluster.url.replace("//", "//headrace:word@")
    for node in cluster.nodes if missing == "CLUSTER" else cluster.nodes[1:2]:
        await node.run_command("ACL", "SETUSER", "headrace", right)
    error = await refusal(url)
    assert error.reason == Reason.NO_PERMISSION
    assert missing in error.detail
    for node in cluster.nodes:
        await node.run_command("ACL", "SETUSER", "headrace", "reset", "on", ">word", *RIGHTS)
    assert await check(url) == []


async def test_the_documented_rights_suffice(cluster: Cluster) -> None:
    for node in cluster.nodes:
        more = ("+cluster|slots", "+cluster|info")
        await node.run_command("ACL", "SETUSER", "headrace", "reset", "on", ">word", *documented_rights(), *more)
    assert await check(cluster.url.replace("//", "//headrace:word@")) == []
    for node in cluster.nodes:
        await node.run_command("ACL", "SETUSER", "headrace", "reset", "on", ">word", *RIGHTS)


async def test_what_makes_an_outage_worse_is_told(cluster: Cluster) -> None:
    await cluster.nodes[0].run_command("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    replica = await cluster.replica_of(cluster.nodes[0])
    await cluster.kill(replica)
    # A replica is in the map until the others agree that it failed.
    found: list[str] = []
    while len(found) < 2:
        found = await check(cluster.url)
    assert "cluster-require-full-coverage" in found[1]
    assert f"127.0.0.1:{cluster.nodes[0].port} has no replica" in found[0]
    await cluster.restart(replica)
    await cluster.nodes[0].run_command("CONFIG", "SET", "cluster-require-full-coverage", "no")


async def test_a_server_without_a_cluster_or_without_slots_is_named(tmp_path: Path) -> None:
    plain = Broker(tmp_path / "plain")
    empty = Broker(tmp_path / "empty", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    await plain.start()
    await empty.start()
    try:
        error = await refusal(plain.url.replace("redis:", "redis+cluster:"))
        assert isinstance(error, BrokerMisconfigured)
        assert error.reason == Reason.CLUSTER
        assert "redis://" in error.detail
        assert (await refusal(empty.url.replace("redis:", "redis+cluster:"))).reason == Reason.FAILOVER
    finally:
        plain.kill()
        empty.kill()
    error = await refusal(plain.url.replace("redis:", "redis+cluster:"))
    assert error.reason == Reason.REFUSED
