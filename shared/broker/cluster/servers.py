"""The common interface of one server and of a cluster, and the one server."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from shared.broker.cluster.address import Node, is_cluster_url
from shared.broker.cluster.cluster import Cluster
from shared.broker.pipeline_connection import Command, PipelineConnection
from shared.broker.redis_address import safe_address
from shared.broker.shared_connection import SharedConnection

#: The node of a single server. Its address is in the URL alone, which may name sentinels.
ONLY: Final = Node("", 0)


class NodeConnection(Protocol):
    """A connection to one node. Its exchanges may overlap."""

    target: str

    @property
    def far_s(self) -> float:
        """See :attr:`PipelineConnection.far_s`."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands of the node's slots; see :meth:`PipelineConnection.exchange`. The reply to a command whose
        slot is elsewhere is :class:`SlotMoved`."""

    async def aclose(self) -> None: ...


class Servers(Protocol):
    """The servers with our data. ``version`` changes with ``nodes`` and ``node_of``."""

    target: str
    #: Timeout of connections of their own.
    loop_timeout_s: float

    @property
    def version(self) -> int: ...

    @property
    def nodes(self) -> Sequence[Node]: ...

    def node_of(self, key: str | bytes) -> Node:
        """Return the node of a key, as far as it is known."""

    async def changed_since(self, version: int) -> None:
        """Wait until ``version`` is another."""

    def connection(self, node: Node, *, timeout_s: float | None = None) -> NodeConnection:
        """Return a connection of the caller's own."""

    def url_of(self, node: Node) -> str:
        """Return the URL of one node."""

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands of any slots, and return one reply each: an exception if its node did not execute it, or
        redirected it too often. Raises ``REDIS_ERRORS`` if no server answers at all. Not for loops that serve
        streams: it waits for all nodes. Each command must be safe to send twice, and have a key; SCRIPT LOAD goes to
        the nodes that lacked a script."""

    async def on_each(self, command: Command) -> Mapping[Node, Any]:
        """Send a command to each node, and return the reply, or the exception, of each."""

    def note_trouble(self) -> None:
        """Find out which nodes there are, since one has failed or sent a command elsewhere."""

    async def aclose(self) -> None: ...


class OneServer:
    """A single Redis, or the master that sentinels name. It costs nothing more than its connections."""

    version = 0
    nodes = (ONLY,)

    def __init__(self, url: str, *, timeout_s: float = 5) -> None:
        self._url = url
        self.loop_timeout_s = timeout_s
        self._shared = SharedConnection(PipelineConnection(url, timeout_s=timeout_s))
        self.target = safe_address(url)
        self.exchange = self._shared.exchange
        self.aclose = self._shared.aclose

    def node_of(self, _key: str | bytes) -> Node:
        return ONLY

    async def changed_since(self, _version: int) -> None:
        await asyncio.get_running_loop().create_future()

    def connection(self, _node: Node, *, timeout_s: float | None = None) -> PipelineConnection:
        return PipelineConnection(self._url, timeout_s=timeout_s or self.loop_timeout_s)

    def url_of(self, _node: Node) -> str:
        return self._url

    async def on_each(self, command: Command) -> Mapping[Node, Any]:
        return {ONLY: (await self.exchange([command]))[0]}

    def note_trouble(self) -> None:
        """Do nothing: there is one server, and each connection finds it again."""


def servers_of(url: str, *, timeout_s: float = 5) -> Servers:
    """Return the servers that a URL names. Raises ValueError."""
    return Cluster(url, timeout_s=timeout_s) if is_cluster_url(url) else OneServer(url, timeout_s=timeout_s)
