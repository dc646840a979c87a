"""One loop for each node: a node that is slow, frozen or dead delays the items of its own slots only.

A loop has one exchange in flight with a node that is near: items that wait for it go together in the next, which
costs less. With a node that is far away it has several, so that an item does not wait for the exchange of others.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Generic, TypeVar

from redis.exceptions import RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.exchanges import Exchanges
from shared.broker.cluster.item_queue import ItemQueue
from shared.broker.cluster.per_node import run_per_node
from shared.broker.cluster.servers import NodeConnection, OneServer, Servers

T = TypeVar("T")
_RETRY_S: Final = 0.1


class NodeLoops(Generic[T]):
    """Calls ``serve`` with a connection to a node and the items that wait for it. ``key_of`` returns a key of an
    item's slot, which decides about its node whenever it waits. ``tick_s`` returns how long to wait for further items
    after the first. ``timeout_s``: of the connections, if it is another than usual.

    ``serve`` puts an item again if its exchange failed. If it raises one of ``REDIS_ERRORS``, all its items are put
    again. It is called for several nodes at once, and for a node that is far away several times at once, but never
    twice at once with the same item.
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
        self._queues: dict[Node, ItemQueue[T]] = {}
        self._only: ItemQueue[T] | None = ItemQueue(tick_s) if isinstance(servers, OneServer) else None
        #: Items in the hands of ``serve``: True if they were put meanwhile.
        self._served: dict[T, bool] = {}

    def put(self, item: T) -> None:
        """Let an item be served soon. One that waits already is served once."""
        if item in self._served:
            self._served[item] = True
        else:
            (self._only or self._queue_of(item)).put(item)

    def withdraw(self, item: T) -> None:
        """Let an item wait no longer."""
        if item in self._served:
            self._served[item] = False
        else:
            (self._only or self._queue_of(item)).withdraw(item)

    async def run(self) -> None:
        """Run until cancelled, or until ``serve`` raises another error."""
        await run_per_node(self._servers, self._run_one)

    async def _run_one(self, node: Node) -> None:
        connection = self._servers.connection(node, timeout_s=self._timeout_s)
        queue = self._only or self._queue_at(node)
        exchanges = Exchanges(connection, queue.fail)
        try:
            with suppress(RedisError, OSError):  # the first item need not wait for the connection
                await connection.exchange([("PING",)])
            while True:
                await queue.wait_until_due(exchanges.pause_s)
                items = self._still_here(node, queue.take())
                if items:
                    self._served |= dict.fromkeys(items, False)
                    await exchanges.run(self._serve_once(connection, items), partial(self._settle, connection, items))
        finally:  # the node may be gone
            await exchanges.cancel()
            self._queues.pop(node, None)
            for item in queue.take():
                self.put(item)
            await connection.aclose()

    async def _serve_once(self, connection: NodeConnection, items: list[T]) -> bool:
        try:
            await self._serve(connection, items)
        except (RedisError, OSError):
            self._servers.note_trouble()
            await asyncio.sleep(_RETRY_S)
            return False
        return True

    def _settle(self, connection: NodeConnection, items: list[T], is_served: bool) -> None:
        is_late = connection.far_s > 0  # further items would not have to wait for these
        for item in items:
            if self._served.pop(item) or not is_served:
                (self._only or self._queue_of(item)).put(item, is_late=is_late)

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

    def _queue_of(self, item: T) -> ItemQueue[T]:
        return self._queue_at(self._servers.node_of(self._key_of(item)))

    def _queue_at(self, node: Node) -> ItemQueue[T]:
        if (queue := self._queues.get(node)) is None:
            queue = self._queues[node] = ItemQueue(self._tick_s)
        return queue
