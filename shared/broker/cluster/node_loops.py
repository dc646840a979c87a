"""One loop for each node: a node that is slow, frozen or dead delays the items of its own slots only."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from redis.exceptions import RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.per_node import run_per_node
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

    def put(self, item: T) -> None:
        """Let an item be served soon. One that waits already is served once."""
        self._queue(self._servers.node_of(self._key_of(item))).put(item)

    async def run(self) -> None:
        """Run until cancelled, or until ``serve`` raises another error."""
        await run_per_node(self._servers, self._run_one)

    async def _run_one(self, node: Node) -> None:
        connection, queue = self._servers.connection(node), self._queue(node)
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
        finally:  # the node may be gone
            self._queues.pop(node, None)
            for item in (*items, *queue.take()):
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
