"""One loop for each node: a node that is slow, frozen or dead delays the items of its own slots only."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from redis.exceptions import RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.servers import NodeConnection, Servers

T = TypeVar("T")
_RETRY_S: Final = 0.05


class NodeLoops(Generic[T]):
    """Calls ``serve`` with a connection to a node and the items that wait for it. ``key_of`` returns a key of an
    item's slot, which decides about its node whenever it waits.

    ``serve`` puts an item again if its exchange failed. If it raises one of ``REDIS_ERRORS``, all its items are put
    again. It is called for one node at a time, and for several nodes at once.
    """

    def __init__(
        self,
        servers: Servers,
        serve: Callable[[NodeConnection, list[T]], Awaitable[None]],
        key_of: Callable[[T], str | bytes],
    ) -> None:
        self._servers = servers
        self._serve = serve
        self._key_of = key_of
        self._queues: dict[Node, _Queue[T]] = {}
        self._loops: dict[Node, asyncio.Task[None]] = {}

    def put(self, item: T) -> None:
        """Let an item be served soon. One that waits already is served once."""
        self._queue(self._servers.node_of(self._key_of(item))).put(item)

    async def run(self) -> None:
        """Run until cancelled, or until ``serve`` raises another error."""
        try:
            while True:
                version = self._servers.version
                self._follow_nodes()
                changed = asyncio.create_task(self._servers.changed_since(version))
                done, _ = await asyncio.wait((changed, *self._loops.values()), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for task in done - {changed}:
                    task.result()
        finally:
            loops = list(self._loops.values())
            self._loops.clear()
            for loop in loops:
                loop.cancel()
            if loops:
                await asyncio.wait(loops)

    def _follow_nodes(self) -> None:
        """Have a loop for each node, and move the items of nodes that are gone."""
        nodes = set(self._servers.nodes)
        for node in nodes - set(self._loops):
            self._loops[node] = asyncio.create_task(self._run_one(node, self._queue(node)))
        for node in set(self._loops) - nodes:
            self._loops.pop(node).cancel()
        for node in set(self._queues) - nodes:
            for item in self._queues.pop(node).take():
                self.put(item)

    async def _run_one(self, node: Node, queue: "_Queue[T]") -> None:
        connection = self._servers.connection(node)
        items: list[T] = []
        try:
            while True:
                await queue.filled.wait()
                items = self._still_here(node, queue.take())
                if not items:
                    continue
                try:
                    await self._serve(connection, items)
                except (RedisError, OSError):
                    self._servers.note_trouble()
                    await asyncio.sleep(_RETRY_S)
                    for item in items:
                        self.put(item)
                items = []
        finally:
            for item in items:  # the node is gone
                self.put(item)
            await connection.aclose()

    def _still_here(self, node: Node, items: list[T]) -> list[T]:
        """Return the items of the node, and let the others wait for theirs."""
        if len(self._servers.nodes) == 1:
            return items
        here = []
        for item in items:
            if self._servers.node_of(self._key_of(item)) == node:
                here.append(item)
            else:
                self.put(item)
        return here

    def _queue(self, node: Node) -> "_Queue[T]":
        if (queue := self._queues.get(node)) is None:
            queue = self._queues[node] = _Queue()
        return queue


class _Queue(Generic[T]):
    """An ordered set of waiting items."""

    def __init__(self) -> None:
        self.filled = asyncio.Event()
        self._items: dict[T, None] = {}

    def put(self, item: T) -> None:
        self._items[item] = None
        self.filled.set()

    def take(self) -> list[T]:
        self.filled.clear()
        items, self._items = list(self._items), {}
        return items
