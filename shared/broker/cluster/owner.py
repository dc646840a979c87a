"""Connections to the master of one key: a worker's queue, and arq's plain client."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.broker.cluster.address import Node
from shared.broker.cluster.redirects import is_away
from shared.broker.cluster.servers import NodeConnection, Servers
from shared.broker.connection_pool import pool_of
from shared.broker.pipeline_connection import Command


class OwnerConnection:
    """A connection for one task at a time to whichever node has ``key``. ``timeout_s`` must be longer than a command
    that blocks."""

    def __init__(self, servers: Servers, key: str, *, timeout_s: float) -> None:
        self._servers = servers
        self._key = key
        self._timeout_s = timeout_s
        self._node: Node | None = None
        self._connection: NodeConnection | None = None
        self.target = servers.target

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands of the key's slot; see :meth:`NodeConnection.exchange`."""
        node = self._servers.node_of(self._key)
        if self._connection is None or node != self._node:
            await self.aclose()
            self._node, self._connection = node, self._servers.connection(node, timeout_s=self._timeout_s)
        return await self._connection.exchange(commands)

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def owner_pool(servers: Servers, key: str, *, timeout_s: float, connections: int) -> ConnectionPool:
    """Return a pool for redis-py, each of whose connections goes to the node that has ``key`` when it connects. A
    redirection breaks it, so that the next call connects to another node."""
    pool = pool_of(servers.url_of(servers.node_of(key)), timeout_s=timeout_s, connections=connections)
    if len(servers.nodes) == 1 and not servers.nodes[0].host:  # one server, or sentinels
        return pool
    plain = pool.connection_class

    class OfOwner(plain):  # type: ignore[misc,valid-type]
        async def connect(self) -> None:
            if not self.is_connected:
                self.host, self.port = servers.node_of(key)
            try:
                await super().connect()
            except (RedisConnectionError, OSError):
                servers.note_trouble()
                raise

        async def read_response(self, *arguments: Any, **options: Any) -> Any:
            try:
                return await super().read_response(*arguments, **options)
            except ResponseError as error:
                if not is_away(error):
                    raise
                servers.note_trouble()
                await self.disconnect()
                raise RedisConnectionError(str(error)) from error

    pool.connection_class = OfOwner
    return pool
