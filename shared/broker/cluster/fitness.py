"""Checks that a cluster can be used: each master is new enough, evicts nothing, takes writes, grants all rights."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shared.broker.client import Client, parse_info, refused
from shared.broker.cluster.address import Node
from shared.broker.cluster.cluster import Cluster
from shared.broker.cluster.slots import BUCKET_TAGS
from shared.broker.fitness import Fitness, adopt_version, check_server
from shared.broker.keys import DESK
from shared.broker.rights import check_rights
from shared.broker.trouble import Reason, classify
from shared.broker.trouble_log import TROUBLE
from shared.errors import BrokerMisconfigured, BrokerUnavailable

_DISABLED: Final = "cluster support disabled"
#: Time for a write to each node; after it a node counts as silent.
_PROBE_S: Final = 1.0


class ClusterFitness:
    """The check for a client of a cluster. All of it must be fit at the start. Later a trouble of single nodes does
    not concern the others, except the desk's. ``warnings``: settings that make the outage of one node worse."""

    def __init__(self, client: Client, cluster: Cluster) -> None:
        self.warnings: Sequence[str] = ()
        self._client = client
        self._cluster = cluster
        self._checked: int | None = None  # version of the map that was found fit; None after a trouble
        self._was_fit = False
        self._probes: dict[Node, asyncio.Task[BrokerUnavailable | None]] = {}

    async def check(self) -> BrokerUnavailable | None:
        """Return the trouble of a node, with which the others go on. Raises :class:`BrokerUnavailable` and
        :class:`BrokerMisconfigured` as :meth:`Fitness.check` does."""
        if self._was_fit:
            troubles = await self._probe_all()
            if troubles:
                self._checked = None
            if (of_desk := troubles.get(self._cluster.node_of(DESK))) is not None:
                raise of_desk
            if troubles:
                return next(iter(troubles.values()))
        if self._checked != self._cluster.version or _lacks_rights():
            self.warnings = await check_cluster(self._cluster)
            self._checked = self._cluster.version
        await adopt_version(self._client)
        self._was_fit = True
        return None

    async def _probe_all(self) -> dict[Node, BrokerUnavailable]:
        """Write to each node with slots of ours, and return the troubles. A probe of a silent node goes on, and the
        next call waits for it again."""
        for node in self._cluster.nodes:
            if node not in self._probes and (key := _probe_key(self._cluster, node)) is not None:
                self._probes[node] = asyncio.create_task(self._probe(node, key))
        probes = dict(self._probes)  # a call at the same time waits for the same ones
        if probes:
            await asyncio.wait(probes.values(), timeout=_PROBE_S)
        found = {}
        for node, probe in probes.items():
            if not probe.done():
                found[node] = classify(TimeoutError(), _name(self._cluster, node))
                continue
            if self._probes.get(node) is probe:
                del self._probes[node]
            if (error := probe.result()) is not None:
                found[node] = error
        return {node: error for node, error in found.items() if node in self._cluster.nodes}

    async def _probe(self, node: Node, key: str) -> BrokerUnavailable | None:
        try:
            (reply,) = await self._cluster.exchange([("SETRANGE", key, 0, b"")])
        except (RedisError, OSError) as error:
            return classify(error, _name(self._cluster, node))
        return refused(reply, _name(self._cluster, node), "SETRANGE") if isinstance(reply, Exception) else None


def fitness_of(client: Client) -> Fitness | ClusterFitness:
    """Return the check for the servers of a client."""
    return ClusterFitness(client, client.servers) if isinstance(client.servers, Cluster) else Fitness(client)


def _lacks_rights() -> bool:
    return TROUBLE.current is not None and TROUBLE.current.reason == Reason.NO_PERMISSION


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
