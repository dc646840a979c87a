"""The nodes of a cluster, as far as they are known. The slot map is read again after each sign that it is old."""

import asyncio
import random
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from redis.exceptions import RedisError

from shared.broker.cluster.address import ClusterAddress, Node
from shared.broker.cluster.redirects import Redirect
from shared.broker.cluster.slot_map import SlotMap
from shared.broker.cluster.slots import slot_of
from shared.broker.pipeline_connection import PipelineConnection

#: Timeout of a node that is asked for the map.
_TIMEOUT_S: Final = 1.0
#: Shortest time between two readings of the map.
_PAUSE_S: Final = 0.1


class Topology:
    """Masters and their slots. ``version`` changes with them. ``silent``: nodes that did not answer in time when they
    were last asked."""

    def __init__(self, url: str) -> None:
        self.address = ClusterAddress(url)
        self.is_known = False
        self.version = 0
        self.silent = set[Node]()
        self._map = SlotMap(self.address.seeds[0])
        self._asked: Node | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read_at = -_PAUSE_S
        self._waiters = set[asyncio.Future[None]]()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self._map.nodes

    @property
    def nodes_without_replica(self) -> tuple[Node, ...]:
        return self._map.alone

    def node_of(self, key: str | bytes) -> Node:
        return self._map.owners[slot_of(key)]

    def node_of_slot(self, slot: int) -> Node:
        return self._map.owners[slot]

    def node_at(self, redirect: Redirect, asked: Node) -> Node:
        """Return the node that a redirection of ``asked`` names."""
        return self._map.at(redirect.host, redirect.port, asked)

    async def changed_since(self, version: int) -> None:
        """Wait until ``version`` is another."""
        if self.version != version:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def read(self) -> None:
        """Read the map. Concurrent calls share one reading. Raises ``REDIS_ERRORS`` if no node answers."""
        await asyncio.shield(self.read_soon())

    def read_soon(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._reading

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    async def _read(self) -> None:
        """Ask one node after another, in any order. One that was away may have an old map, so the node that was asked
        last is not asked first, and those that are silent come last."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0, self._read_at + _PAUSE_S - loop.time()))
        self._read_at = loop.time()
        known = random.sample(self.nodes, len(self.nodes))
        known.sort(key=lambda node: (node in self.silent, node == self._asked))
        failure: Exception = RedisError("the cluster has no node")
        for node in dict.fromkeys(chain(known, self.address.seeds)):
            try:
                self._take(await self._ask(node), node)
            except (RedisError, OSError) as error:
                failure = error
            else:
                return
        raise failure

    async def _ask(self, node: Node) -> Sequence[Any]:
        connection = PipelineConnection(self.address.url_of(node), timeout_s=_TIMEOUT_S)
        try:
            (reply,) = await connection.exchange([("CLUSTER", "SLOTS")])
        finally:
            await connection.aclose()
        if isinstance(reply, Exception):
            raise reply
        slots: Sequence[Any] = reply
        return slots

    def _take(self, reply: Sequence[Any], asked: Node) -> None:
        changed = self._map.update(reply, asked, by_name=self.address.has_tls)
        self._asked, self.is_known = asked, True
        if not changed:
            return
        self.version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
