"""Exchanges over several nodes, redirections, scripts, passwords, TLS, and the owner of one key."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.broker.api_keys import create_api_key, list_api_keys, revoke_api_key, was_revoked
from shared.broker.client import connect, run_scripts
from shared.broker.cluster.address import ClusterAddress, Node
from shared.broker.cluster.cluster import Cluster as Connections
from shared.broker.cluster.owner import OwnerConnection, owner_pool
from shared.broker.cluster.redirects import SlotMoved
from shared.broker.cluster.servers import OneServer, Servers, servers_of
from shared.broker.cluster.shard_channels import listen_to_shards
from shared.broker.cluster.slot_map import SlotMap
from shared.broker.cluster.slots import BUCKET_TAGS, slot_of
from shared.broker.creation import BucketUnavailable, create
from shared.broker.data_version import UNVERSIONED, DataVersion
from shared.broker.keys import QUEUE, api_key_key, state_key, sweep_keys
from shared.broker.memory_stats import read_memory
from shared.broker.routes import routes_at
from shared.broker.scripts import StreamScripts
from shared.broker.trouble import Reason, classify
from shared.protocol.ids import new_stream_id
from shared.settings import Settings
from tests.broker import Broker
from tests.broker_cluster import ENGINES, Cluster, until
from tests.cluster.load import Load
from tests.ports import free_port
from tests.scripts.stream import Stream
from tests.test_redis_urls import make_certificate

KEYS = [f"hr:{{{tag}}}:key" for tag in BUCKET_TAGS[::8]]


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    # Without replicas, a node that is paused for this long would be missing until it is heard of again.
    servers = Cluster(tmp_path_factory.mktemp("cluster"), "--cluster-node-timeout", "15000")
    await servers.start()
    yield servers
    await servers.stop()


@pytest.fixture
async def connections(cluster: Cluster) -> AsyncIterator[Connections]:
    made = Connections(cluster.url)
    yield made
    await made.aclose()


async def test_one_node_that_answers_is_enough_to_find_the_others(cluster: Cluster) -> None:
    connections = Connections(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{cluster.nodes[2].port}")
    async with Load(connections) as load:
        assert not load.errors
    assert len(connections.nodes) == 3
    await connections.aclose()


async def test_an_exchange_reaches_all_nodes_in_one_call(connections: Connections) -> None:
    assert await connections.exchange([("SET", key, key, "PX", 60_000) for key in KEYS]) == [b"OK"] * len(KEYS)
    assert await connections.exchange([("GET", key) for key in KEYS]) == [key.encode() for key in KEYS]
    assert len(connections.nodes) == 3
    sizes = await connections.on_each(("DBSIZE",))
    assert all(sizes[node] for node in connections.nodes)


async def test_a_frozen_node_fails_its_own_commands_only(cluster: Cluster, connections: Connections) -> None:
    await connections.exchange([("SET", key, key, "PX", 60_000) for key in KEYS])
    master = await cluster.owner(KEYS[0])
    is_own = [await cluster.owner(key) is master for key in KEYS]
    master.freeze()
    try:
        replies = await connections.exchange([("GET", key) for key in KEYS])
    finally:
        master.thaw()
    for key, own, reply in zip(KEYS, is_own, replies, strict=True):
        assert isinstance(reply, TimeoutError) if own else reply == key.encode()
    await cluster.settled()


async def test_a_stream_is_queued_only_with_its_state(cluster: Cluster) -> None:
    """A worker that found it without would take it for gone."""
    client = connect(cluster.url, timeout_s=1)
    scripts = StreamScripts(Settings(redis_url=cluster.url), routes_at(cluster.url))
    desk = await cluster.owner(QUEUE)
    stream = Stream(client, key=False)
    while await cluster.owner(state_key(stream.id)) is desk:
        stream = Stream(client, key=False)
    bucket = await cluster.owner(state_key(stream.id))
    await desk.run_command("CONFIG", "RESETSTAT")
    bucket.freeze()
    try:
        with pytest.raises(BucketUnavailable):
            await create(client, scripts, stream.creation())
    finally:
        bucket.thaw()
    assert "cmdstat_evalsha" not in await desk.run_command("INFO", "commandstats")  # not even for a moment
    await cluster.settled()
    await client.aclose()


async def test_data_of_another_version_is_found_on_any_node(cluster: Cluster, connections: Connections) -> None:
    for node in cluster.nodes:
        owned = await cluster.owned_by(node)
        index = next(key for key, _ in sweep_keys() if slot_of(key) in owned)
        await connections.exchange([("ZADD", index, 1, "a-stream"), ("PEXPIRE", index, 60_000)])
        version = DataVersion(connections)
        await version.adopt()
        assert version.found == UNVERSIONED
        await connections.exchange([("DEL", index)])


async def test_api_keys_of_all_nodes_are_listed_and_revoked(cluster: Cluster) -> None:
    client = connect(cluster.url)
    try:
        keys = [(await create_api_key(client, f"name {number}", ["chat"]))[0] for number in range(20)]
        assert len({slot_of(api_key_key(key.id)) for key in keys}) > 3
        assert await list_api_keys(client) == keys
        for key in keys:
            assert await revoke_api_key(client, key.id)
            assert await was_revoked(client, key.id)
        assert await list_api_keys(client) == []
        used = [(await node.run_command("INFO", "memory"))["used_memory"] for node in cluster.nodes]
        assert (await read_memory(client)).used > sum(used) / 2
    finally:
        await client.aclose()


async def test_a_node_without_the_script_gets_it(cluster: Cluster, connections: Connections) -> None:
    scripts = StreamScripts(Settings())
    calls = [scripts.note_resume(new_stream_id(), "reset") for _ in range(30)]
    assert await run_scripts(connections, calls) == [""] * len(calls)
    await (await cluster.owner(calls[0].keys[0])).run_command("SCRIPT", "FLUSH")
    assert await run_scripts(connections, calls) == [""] * len(calls)
    for node in connections.nodes:
        own = [call for call in calls if connections.node_of(call.keys[0]) == node]
        line = connections.connection(node)
        await (await cluster.owner(own[0].keys[0])).run_command("SCRIPT", "FLUSH")
        assert await run_scripts(line, own) == [""] * len(own)
        await line.aclose()


async def test_a_slot_in_the_middle_of_a_migration_is_followed(cluster: Cluster, connections: Connections) -> None:
    """One of two keys is at the target already: commands of either work, and one of both fails for the moment."""
    here, there = (f"hr:{{{BUCKET_TAGS[9]}}}:{name}" for name in ("here", "there"))
    source = await cluster.owner(here)
    target = next(node for node in cluster.nodes if node is not source)
    slot = slot_of(here)
    await connections.exchange([("SET", key, key, "PX", 60_000) for key in (here, there)])
    line = connections.connection(connections.node_of(here))
    await target.run_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    await source.run_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    await source.run_command("MIGRATE", "127.0.0.1", target.port, there, 0, 5000)
    for exchange in (connections.exchange, line.exchange):
        first, second, both = await exchange([("GET", here), ("GET", there), ("MGET", here, there)])
        assert (first, second) == (here.encode(), there.encode())
        assert isinstance(both, SlotMoved)
        assert classify(both, "").reason == Reason.FAILOVER
    await cluster.move_slots([slot], target)
    for exchange in (connections.exchange, line.exchange):
        replies = await exchange([("GET", here)])
        moved = exchange == line.exchange  # it has one node, and its caller turns to another
        assert isinstance(replies[0], SlotMoved) if moved else replies == [here.encode()]
    assert connections.node_of(here).port == target.port
    await line.aclose()


async def test_the_owner_of_a_key_is_followed(cluster: Cluster, connections: Connections) -> None:
    """A blocked worker, and redis-py's own client as arq uses it, turn to the node to which the key has moved."""
    queue = "hr:{desk}:queue"
    await connections.topology.read()
    taking = OwnerConnection(connections, queue, timeout_s=30)
    plain = Redis(connection_pool=owner_pool(connections, queue, timeout_s=30, connections=1))
    assert await plain.set("hr:{desk}:health", 1, ex=60)
    for target in (cluster.nodes[0], cluster.nodes[1]):
        blocked = asyncio.create_task(taking.exchange([("BZPOPMIN", queue, 10)]))
        await until(lambda: is_blocking(cluster, queue))
        await cluster.move_slots([slot_of(queue)], target)
        await blocked  # the server ends it at once, or it has waited in vain
        await connections.exchange([("ZADD", queue, 1, "an-id"), ("PEXPIRE", queue, 60_000)])
        taken = None
        while not isinstance(taken, list):
            (taken,) = await taking.exchange([("BZPOPMIN", queue, 1)])
        assert taken[1] == b"an-id"
        await until(lambda: plain.set("hr:{desk}:health", 1, ex=60))
    await taking.aclose()
    await plain.aclose(close_connection_pool=True)


async def test_a_listener_follows_its_channel_without_other_traffic(cluster: Cluster) -> None:
    channel = f"hr:{{{BUCKET_TAGS[70]}}}:channel"
    connections, heard, resumed = Connections(cluster.url), list[bytes](), list[str]()
    listening = asyncio.create_task(
        listen_to_shards(connections, [channel], hear=heard.extend, resumed=resumed.extend)
    )
    async with asyncio.timeout(40):
        for number, target in enumerate((cluster.nodes[0], cluster.nodes[1], cluster.nodes[2])):
            await cluster.move_slots([slot_of(channel)], target)
            while heard[-1:] != [b"%d" % number]:  # the server may not have ended the subscription yet
                await target.run_command("SPUBLISH", channel, number)
                await asyncio.sleep(0.02)
    assert set(resumed) == {channel}
    listening.cancel()
    await asyncio.wait([listening])
    await connections.aclose()


async def test_a_listener_that_stood_still_keeps_its_subscription(tmp_path: Path) -> None:
    """A process that gets no time for longer than an answer may take has not lost its server."""
    broker, channel = Broker(tmp_path), f"hr:{{{BUCKET_TAGS[70]}}}:channel"
    await broker.start()
    servers, heard, resumed = servers_of(broker.url, timeout_s=60), list[bytes](), list[str]()
    listening = asyncio.create_task(listen_to_shards(servers, [channel], hear=heard.extend, resumed=resumed.extend))
    try:
        async with asyncio.timeout(60):
            while not resumed:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)  # nothing is under way
            time.sleep(4)
            while not heard:
                await asyncio.sleep(0.01)
                await servers.exchange([("SPUBLISH", channel, "here")])
        assert resumed == [channel]
    finally:
        listening.cancel()
        await asyncio.wait([listening])
        await servers.aclose()
        broker.kill()


async def is_blocking(cluster: Cluster, key: str) -> bool:
    info = await (await cluster.owner(key)).run_command("INFO", "clients")
    return bool(info["blocked_clients"])


async def test_one_server_needs_no_map(tmp_path: Path) -> None:
    """The same load, with its loop and its channels, on a server that is no cluster."""
    broker = Broker(tmp_path)
    await broker.start()
    servers: Servers = servers_of(broker.url)
    try:
        assert isinstance(servers, OneServer)
        async with Load(servers) as load:
            await load.all_go_on()
            assert not load.errors
            assert not load.missed()
        plain = Redis(connection_pool=owner_pool(servers, "hr:{desk}:queue", timeout_s=5, connections=1))
        assert await plain.ping()
        await plain.aclose(close_connection_pool=True)
    finally:
        await servers.aclose()
        broker.kill()


@pytest.mark.skipif("redis" not in ENGINES, reason="needs a redis-server with TLS")
async def test_nodes_have_names_certificates_and_passwords(tmp_path: Path) -> None:
    """The certificate has only the name; the nodes use each other's addresses."""
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path, "DNS:localhost")
    tls = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
    cluster = Cluster(
        tmp_path,
        *(*tls, "--tls-auth-clients", "no", "--tls-cluster", "yes", "--cluster-announce-hostname", "localhost"),
        *("--user", "headrace", "on", ">pass:word", "~hr:*", "&hr:*", "+@all"),
        masters=2,
        binary=ENGINES["redis"],
        has_tls=True,
    )
    await cluster.start()
    hosts = ",".join(f"localhost:{node.tls_port}" for node in cluster.nodes)
    connections = Connections(f"rediss+cluster://headrace:pass%3Aword@{hosts}?ssl_ca_certs={certificate}")
    try:
        await until(partial(is_writable, connections))  # the nodes learn each other's names late
        assert {node.host for node in connections.nodes} == {"localhost"}
        assert {node.port for node in connections.nodes} == {node.tls_port for node in cluster.nodes}
        users = await connections.on_each(("CLIENT", "LIST"))
        assert all(b"user=headrace" in listed for listed in users.values())
        assert "pass" not in connections.target
        async with Load(connections) as load:
            await load.all_go_on()
            assert not load.errors
    finally:
        await connections.aclose()
        await cluster.stop()


async def is_writable(connections: Connections) -> bool:
    replies = await connections.exchange([("SET", key, 1, "PX", 60_000) for key in KEYS])
    return replies == [b"OK"] * len(KEYS)


def test_unknown_hosts_are_those_that_were_asked() -> None:
    asked = Node("redis.example", 7000)
    slots = SlotMap(asked)
    reply = [
        [0, 99, [None, 7001, b"id1", []], [b"10.0.0.9", 7009, b"id9", []]],
        [100, 199, [b"", 7002, b"id2", []]],
        [200, 299, [b"?", 7003, b"id3", [b"ip", b"10.0.0.3"]]],
        [300, 16383, [b"10.0.0.4", 7004, b"id4", [b"hostname", b"four.example"]]],
    ]
    assert slots.update(reply, asked, by_name=False)
    assert [slots.owners[at] for at in (0, 100, 200, 300)] == [
        Node("redis.example", 7001),
        Node("redis.example", 7002),
        Node("10.0.0.3", 7003),
        Node("10.0.0.4", 7004),
    ]
    assert slots.alone == tuple(slots.owners[at] for at in (100, 200, 300))
    assert slots.update(reply, asked, by_name=True)
    assert slots.owners[300] == Node("four.example", 7004) == slots.at("10.0.0.4", 7004, asked)
    assert slots.at("", 7002, asked) == Node("redis.example", 7002)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+cluster://", "host"),
        ("redis+cluster://a:1,:2", "host"),
        ("redis+cluster://a:99999", "port"),
        ("redis+cluster://user:sesame@a:x", "port"),
        ("redis+cluster://a:1/3", "database"),
        ("redis://a:1", "must begin"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_in_words(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        ClusterAddress(url)
    assert "sesame" not in str(caught.value)


def test_an_address_has_the_credentials_and_options_of_each_node() -> None:
    address = ClusterAddress("rediss+cluster://user:p%40ss@a:7000,b,[::1]:7002?ssl_ca_certs=/a.pem")
    assert address.seeds == [Node("a", 7000), Node("b", 6379), Node("::1", 7002)]
    assert [address.url_of(node) for node in address.seeds] == [
        f"rediss://user:p%40ss@{host}/0?ssl_ca_certs=/a.pem" for host in ("a:7000", "b:6379", "[::1]:7002")
    ]
    assert address.shown == "rediss+cluster://a:7000,b,[::1]:7002"
