"""One loop for each node: a node that is slow, frozen or dead delays the items of its own slots only."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from redis.exceptions import RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.per_node import run_per_node
from shared.broker.cluster.servers import NodeConnection, OneServer, Servers

T = TypeVar("T")
_RETRY_S: Final = 0.1


class NodeLoops(Generic[T]):
    """Calls ``serve`` with a connection to a node and the items that wait for it. ``key_of`` returns a key of an
    item's slot, which decides about its node whenever it waits. ``tick_s`` returns how long to wait for further items
    after the first. ``timeout_s``: of the connections, if it is another than usual.

    ``serve`` puts an item again if its exchange failed. If it raises one of ``REDIS_ERRORS``, all its items are put
    again. It is called for one node at a time, and for several nodes at once.
    """

    def __init__(
        self,
        servers: Servers,
        serve: Callable[[NodeConnection, list[T]], Awaitable[None]],
        key_of: Callable[[T], str | bytes],
        *,
        tick_s: Callable[[], float] = lambda: 0.0,
        timeout_s: float | None = None,
    ) -> None:
        self._servers = servers
        self._serve = serve
        self._key_of = key_of
        self._tick_s = tick_s
        self._timeout_s = timeout_s
        self._queues: dict[Node, _Queue[T]] = {}
        self._only: _Queue[T] | None = _Queue(tick_s) if isinstance(servers, OneServer) else None

    def put(self, item: T) -> None:
        """Let an item be served soon. One that waits already is served once."""
        (self._only or self._queue_of(item)).put(item)

    def withdraw(self, item: T) -> None:
        """Let an item wait no longer."""
        (self._only or self._queue_of(item)).withdraw(item)

    async def run(self) -> None:
        """Run until cancelled, or until ``serve`` raises another error."""
        await run_per_node(self._servers, self._run_one)

    async def _run_one(self, node: Node) -> None:
        connection = self._servers.connection(node, timeout_s=self._timeout_s)
        queue = self._only or self._queue_at(node)
        items: list[T] = []
        try:
            while True:
                await queue.wait_until_due()
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
        if self._only is not None:
            return items
        here = []
        for item in items:
            if self._servers.node_of(self._key_of(item)) == node:
                here.append(item)
            else:
                self.put(item)
        return here

    def _queue_of(self, item: T) -> "_Queue[T]":
        return self._queue_at(self._servers.node_of(self._key_of(item)))

    def _queue_at(self, node: Node) -> "_Queue[T]":
        if (queue := self._queues.get(node)) is None:
            queue = self._queues[node] = _Queue(self._tick_s)
        return queue


class _Queue(Generic[T]):
    """An ordered set of waiting items."""

    def __init__(self, tick_s: Callable[[], float]) -> None:
        self._tick_s = tick_s
        self._items: dict[T, None] = {}
        self._due: asyncio.Future[None] | None = None  # while its loop waits
        self._timer: asyncio.TimerHandle | None = None

    def put(self, item: T) -> None:
        self._items[item] = None
        if self._timer is None and self._due is not None and not self._due.done():
            self._set_timer()

    def withdraw(self, item: T) -> None:
        self._items.pop(item, None)

    def take(self) -> list[T]:
        items, self._items = list(self._items), {}
        return items

    async def wait_until_due(self) -> None:
        """Wait for the first item and for the tick after it, with one wake-up for both."""
        self._due = asyncio.get_running_loop().create_future()
        if self._items:
            self._set_timer()
        try:
            await self._due
        finally:
            self._due = None

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._tick_s(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._due is not None and not self._due.done():
            self._due.set_result(None)
