"""Checks that a cluster can be used: each master is new enough, evicts nothing, takes writes, grants all rights."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.broker.client import parse_info
from shared.broker.cluster.address import Node
from shared.broker.cluster.cluster import Cluster
from shared.broker.cluster.slots import BUCKET_TAGS
from shared.broker.fitness import check_server
from shared.broker.rights import check_rights
from shared.broker.trouble import Reason, classify
from shared.errors import BrokerMisconfigured

_DISABLED: Final = "cluster support disabled"


async def check_cluster(cluster: Cluster) -> list[str]:
    """Raise :class:`BrokerUnavailable` if the cluster cannot be used; :class:`BrokerMisconfigured` if waiting does
    not help. Return warnings for the operator: settings that make the outage of one node worse."""
    await _read_map(cluster)
    info = [dict(_replies(cluster, await cluster.on_each(("INFO", part)))) for part in ("server", "memory")]
    for node, server in info[0].items():
        check_server({**parse_info(server), **parse_info(info[1].get(node, b""))}, _name(cluster, node))
    for node, reply in _replies(cluster, await cluster.on_each(("CLUSTER", "INFO"))):
        if parse_info(reply).get("cluster_state") != "ok":
            raise classify(RedisConnectionError("CLUSTERDOWN its state is not ok"), _name(cluster, node))
    await _check_nodes(cluster)
    return [*_without_replica(cluster), *await _with_full_coverage(cluster)]


async def _read_map(cluster: Cluster) -> None:
    try:
        await cluster.topology.read()
    except (RedisError, OSError) as error:
        if _DISABLED in str(error):
            detail = f"Redis at {cluster.target}: it is no cluster; use redis:// or rediss:// in HEADRACE_REDIS_URL"
            raise BrokerMisconfigured(detail=detail, reason=Reason.CLUSTER) from error
        raise classify(error, cluster.target) from error


async def _check_nodes(cluster: Cluster) -> None:
    """Check that each master with slots of ours takes writes and grants all rights."""
    for node in cluster.nodes:
        if (key := _probe_key(cluster, node)) is None:
            continue
        connection = cluster.connection(node)
        try:
            await check_rights(connection, key)
            # ASKING is harmless: it is for the next command, whose slot is here.
            for reply in await connection.exchange([("ASKING",), ("SETRANGE", key, 0, b"")]):
                if isinstance(reply, Exception):
                    raise classify(reply, _name(cluster, node)) from None
        except (RedisError, OSError) as error:
            raise classify(error, _name(cluster, node)) from error
        finally:
            await connection.aclose()


def _without_replica(cluster: Cluster) -> Iterator[str]:
    for node in cluster.topology.nodes_without_replica:
        yield f"the master {node} has no replica: its streams stand still until it is back"


async def _with_full_coverage(cluster: Cluster) -> list[str]:
    """Read a setting that managed services may hide."""
    replies = await cluster.on_each(("CONFIG", "GET", "cluster-require-full-coverage"))
    strict = [node for node, reply in replies.items() if isinstance(reply, list) and reply[1:] == [b"yes"]]
    if not strict:
        return []
    return ["cluster-require-full-coverage is yes: one master that is away stops all streams; set it to no"]


def _replies(cluster: Cluster, replies: Mapping[Node, Any]) -> Iterator[tuple[Node, bytes]]:
    for node, reply in replies.items():
        if isinstance(reply, Exception):
            raise classify(reply, _name(cluster, node)) from None
        yield node, reply


def _probe_key(cluster: Cluster, node: Node) -> str | None:
    keys = (f"hr:{{{tag}}}:probe" for tag in ("desk", *BUCKET_TAGS))
    return next((key for key in keys if cluster.node_of(key) == node), None)


def _name(cluster: Cluster, node: Node) -> str:
    return f"{node} of {cluster.target}"
