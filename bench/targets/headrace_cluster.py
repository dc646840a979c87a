"""Headrace as a target on a cluster of one to three masters on this machine, each with an append-only file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.targets.headrace import Headrace
from shared.broker.keys import DESK
from tests.broker import Broker
from tests.broker_cluster import VALKEY, Cluster, Node
from tests.system import Gateway

#: As on one server, and as docs/scaling.md recommends.
_OPTIONS: Final = ("--hz", "5", "--appendonly", "yes", "--cluster-node-timeout", "2000")


class HeadraceCluster(Headrace):
    """Headrace on a cluster. Each node is a role of its own; the desk's comes first."""

    masters = 3
    replicas = 0
    binary = Broker.default_binary()
    cluster: Cluster

    @property
    def servers(self) -> Mapping[str, Sequence[int]]:
        return {name: [pid] for name, pid in self._pids.items()}

    @property
    def redis_url(self) -> str:
        return self.cluster.url

    async def start_servers(self, folder: Path) -> None:
        self.cluster = Cluster(folder, *_OPTIONS, masters=self.masters, replicas=self.replicas, binary=self.binary)
        await self.cluster.start()
        desk = await self.cluster.owner(DESK)
        others = [node for node in self.cluster.nodes if node is not desk]
        names = ["desk's node", *(f"node {number}" for number in range(2, len(others) + 2))]
        self._pids = {name: await _pid(node) for name, node in zip(names, [desk, *others], strict=True)}

    async def stop_servers(self) -> None:
        await self.cluster.stop()


class HeadraceOneNode(HeadraceCluster):
    name = "headrace, cluster of 1 node"
    masters = 1


class HeadraceTwoNodes(HeadraceCluster):
    name = "headrace, 2 nodes"
    masters = 2


class HeadraceThreeNodes(HeadraceCluster):
    name = "headrace, 3 nodes"


class HeadraceDisturbed(HeadraceCluster):
    """Three masters with a replica each, two gateways and two workers: something may die."""

    name = "headrace, 3 nodes with replicas"
    replicas = 1
    binary = VALKEY
    workers = 2
    gateways = 2

    @property
    def ports(self) -> list[int]:
        return [part.port for part in self._parts if isinstance(part, Gateway)]


async def _pid(node: Node) -> int:
    info: dict[str, int] = await node.run_command("INFO", "server")
    return info["process_id"]
