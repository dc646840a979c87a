"""The system under test on a cluster of three masters and their replicas, and the faults of its nodes.

Gateways and workers have no proxy before the nodes: each node names its own address to them.
"""

import asyncio
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Final

from shared.broker.cluster.slots import BUCKET_TAGS, SLOTS, slot_of
from shared.broker.keys import DESK
from tests.broker_cluster import VALKEY, Cluster, Node, is_synchronized, until
from tests.chaos.faults import Faults
from tests.chaos.rig import LEASE_S, Rig
from tests.chaos.trace import Fault
from tests.cluster.system import OnCluster

#: A failover takes the timeout of a node and an election.
_FAILOVER_S: Final = 60
_MOST_SLOTS: Final = 500


class ClusterRig(OnCluster, Rig):
    def __init__(
        self, folder: Path, *, on_postgres: bool = False, previous: Path | None = None, **settings: object
    ) -> None:
        super().__init__(folder, on_postgres=on_postgres, previous=previous, **settings)
        self.cluster = Cluster(folder / "cluster", replicas=1, binary=VALKEY)
        self.redis_url = self.cluster.url

    def broker_ports(self, _gateway: int) -> Collection[int]:
        return {*(node.port for node in self.cluster.nodes), self.database.port}

    async def count(self, key: str, least: int) -> int:
        owner = await self.cluster.owner(key)
        return int(await owner.run_command("ZCOUNT", key, least, "+inf"))

    def _environment(self, name: str) -> dict[str, str]:
        return super()._environment(name) | {"HEADRACE_REDIS_URL": self.redis_url}


class ClusterFaults(Faults):
    """Faults of nodes: there is one at a time. Target 0 is the desk's master, target 1 another one."""

    def __init__(self, rig: ClusterRig) -> None:
        super().__init__(rig)
        self._cluster = rig.cluster

    async def _node_kill(self, fault: Fault) -> None:
        async with self._only_fault():
            master = await self._master(fault)
            await self._cluster.kill(master)
            await asyncio.sleep(fault.lasts * LEASE_S)
            await until(partial(self._has_successor, master), within_s=_FAILOVER_S)
            await self._cluster.restart(master)
            await self._is_whole()

    async def _node_freeze(self, fault: Fault) -> None:
        async with self._only_fault():
            master = await self._master(fault)
            master.freeze()
            await asyncio.sleep(fault.lasts * LEASE_S)
            master.thaw()
            await self._is_whole()

    async def _node_full(self, fault: Fault) -> None:
        async with self._only_fault():
            master = await self._master(fault)
            await master.run_command("CONFIG", "SET", "maxmemory", 1)
            await asyncio.sleep(fault.lasts * LEASE_S)
            await master.run_command("CONFIG", "SET", "maxmemory", 0)

    async def _failover(self, fault: Fault) -> None:
        async with self._only_fault():
            await self._cluster.fail_over(await self._cluster.replica_of(await self._master(fault)), "")
            await self._is_whole()

    async def _slots_move(self, fault: Fault) -> None:
        """Move some slots of buckets, the desk's too if it is the target, key by key."""
        async with self._only_fault():
            master, keys = (
                await self._master(fault),
                [f"hr:{{{tag}}}:index" for tag in BUCKET_TAGS[:: 8 + fault.target]],
            )
            slots = await self._cluster.slots_of(master, [DESK, *keys])
            await self._cluster.move_slots(slots, await self._another(master))

    async def _slots_move_at_once(self, fault: Fault) -> None:
        async with self._only_fault():
            master = await self._master(fault)
            first, last = await self._range_of(master)
            await self._cluster.move_at_once(range(first, last + 1), await self._another(master))

    async def _script_flush(self, _: Fault) -> None:
        async with self._only_fault():
            for node in await self._cluster.masters():
                await node.run_command("SCRIPT", "FLUSH")

    async def _client_kill(self, _: Fault) -> None:
        async with self._only_fault():
            for node in await self._cluster.masters():
                for kind in ("normal", "pubsub"):
                    await node.run_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    # --- the cluster

    async def _master(self, fault: Fault) -> Node:
        desk = await self._cluster.owner(DESK)
        others = [node for node in await self._cluster.masters() if node is not desk]
        return others[int(fault.lasts * 1000) % len(others)] if fault.target else desk

    async def _another(self, master: Node) -> Node:
        return next(node for node in await self._cluster.masters() if node is not master)

    async def _has_successor(self, master: Node) -> bool:
        return master not in await self._cluster.masters()

    async def _range_of(self, master: Node) -> tuple[int, int]:
        """Return the first and last of some slots of a master that lie side by side, the desk's if it has it."""
        owned = await self._cluster.owned_by(master)
        first = slot_of(DESK) if slot_of(DESK) in owned else min(owned)
        last = first
        while last + 1 < SLOTS and last + 1 in owned and last - first < _MOST_SLOTS:
            last += 1
        return first, last

    async def _is_whole(self) -> None:
        """Wait until all nodes serve, and each master has a replica with its data."""
        await self._cluster.settled()
        await until(self._has_replicas, within_s=_FAILOVER_S)

    async def _has_replicas(self) -> bool:
        masters = await self._cluster.masters()  # anew each time: a node learns of a failover a moment later
        return all([node in masters or await is_synchronized(node) for node in self._cluster.nodes])
