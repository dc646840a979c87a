"""Scripts in a slot that moves key by key: the servers' behaviour that docs/adr/0020 has rules for."""

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from shared.broker.cluster.slots import BUCKET_TAGS, slot_of
from tests.broker_cluster import ENGINES, Cluster, Node

PREFIX = f"hr:{{{BUCKET_TAGS[0]}}}:"
KEY, OTHER = f"{PREFIX}key", f"{PREFIX}other"
#: The line that each script has before its first write if it deletes or creates keys.
GUARD = f"if type(redis.pcall('EXISTS', '{PREFIX}none')) == 'table' then return {{err = 'TRYAGAIN'}} end "


@pytest.fixture(scope="module", params=ENGINES)
async def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """Yield a master whose slot of these keys is about to leave."""
    patient = ("--cluster-node-timeout", "15000")  # a pause of one master would take the cluster down
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), *patient, masters=2, binary=ENGINES[request.param])
    await cluster.start()
    node = await cluster.owner(KEY)
    target = next(each for each in cluster.nodes if each is not node)
    await node.run_command("SET", KEY, "before", "PX", 600_000)
    await target.run_command("CLUSTER", "SETSLOT", slot_of(KEY), "IMPORTING", node.id)
    await node.run_command("CLUSTER", "SETSLOT", slot_of(KEY), "MIGRATING", target.id)
    yield node
    await cluster.stop()


async def evaluate(node: Node, script: str, *keys: str) -> object:
    return await node.run_command("EVAL", f"#!lua\n{script}", len(keys), *keys)


async def test_a_declared_key_that_does_not_exist_is_refused_before_the_script(source: Node) -> None:
    with pytest.raises(ResponseError, match="TRYAGAIN"):
        await evaluate(source, "redis.call('SET', KEYS[1], 'half') redis.call('UNLINK', KEYS[2])", KEY, OTHER)
    assert await source.run_command("GET", KEY) == b"before"


@pytest.mark.parametrize(
    "rest", [f"redis.call('UNLINK', '{OTHER}')", "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'after')"]
)
async def test_a_script_fails_half_way_unless_it_tries_a_key_that_does_not_exist(source: Node, rest: str) -> None:
    """The first is an undeclared key, the second a key that was there at the start."""
    script = f"redis.call('SET', KEYS[1], 'half') {rest}"
    with pytest.raises(ResponseError, match="TRYAGAIN"):
        await evaluate(source, GUARD + script, KEY)
    assert await source.run_command("GET", KEY) == b"before"
    with pytest.raises(ResponseError, match="non local key"):
        await evaluate(source, script, KEY)
    try:
        assert await source.run_command("GET", KEY) == b"half"
    except ResponseError as error:  # the key is gone, so the server names its next owner
        assert str(error).startswith("ASK")  # noqa: PT017
    await restore(source)


async def restore(source: Node) -> None:
    """Write the key again as it was."""
    nodes = (await source.run_command("CLUSTER", "NODES")).decode()
    target = next(line.split()[0] for line in nodes.splitlines() if "myself" not in line)
    await source.run_command("CLUSTER", "SETSLOT", slot_of(KEY), "STABLE")
    await source.run_command("SET", KEY, "before", "PX", 600_000)
    await source.run_command("CLUSTER", "SETSLOT", slot_of(KEY), "MIGRATING", target)


async def test_the_common_append_goes_on(source: Node) -> None:
    """All its keys exist, and it publishes in its own slot."""
    script = f"redis.call('APPEND', KEYS[1], '') redis.call('SPUBLISH', '{PREFIX}channel', 'x') return 1"
    assert await evaluate(source, script, KEY) == 1
