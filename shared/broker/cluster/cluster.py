"""A Redis or Valkey Cluster: exchanges over several of its nodes, and connections to single ones.

Loops that serve streams have a connection to one node each (:meth:`Cluster.connection`), so that a frozen node stalls
its own streams only. Everything else goes through :meth:`Cluster.exchange`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.node_connection import LoopConnection
from shared.broker.cluster.redirects import SlotMoved, is_away, redirect_in, slot_of_command
from shared.broker.cluster.topology import Topology
from shared.broker.pipeline_connection import Command, PipelineConnection
from shared.broker.shared_connection import SharedConnection

#: Timeout of one node in a loop that serves streams: they go on elsewhere after it, once there is a new master.
LOOP_TIMEOUT_S: Final = 1.0
#: Longest timeout of an exchange with one node: other nodes can answer meanwhile, and there may be a new master.
TIMEOUT_S: Final = 2.0
_TRIES: Final = 4


class Cluster:
    """All masters. ``timeout_s`` is that of one exchange with one node; ``loop_timeout_s`` that of loops that serve
    streams."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, loop_timeout_s: float = LOOP_TIMEOUT_S) -> None:
        self.topology = Topology(url)
        self.node_of = self.topology.node_of
        self.changed_since = self.topology.changed_since
        self.url_of = self.topology.address.url_of
        self.target = self.topology.address.shown
        self._timeout_s = min(timeout_s, TIMEOUT_S)
        self.loop_timeout_s = loop_timeout_s
        self._shared: dict[Node, SharedConnection] = {}
        self._closing = set[asyncio.Task[None]]()
        self._lack_scripts = set[Node]()

    @property
    def nodes(self) -> Sequence[Node]:
        return self.topology.nodes

    @property
    def version(self) -> int:
        return self.topology.version

    def note_trouble(self) -> None:
        self.topology.read_soon()

    def connection(self, node: Node, *, timeout_s: float | None = None) -> LoopConnection:
        return LoopConnection(self.topology, node, timeout_s=timeout_s or self.loop_timeout_s)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """See :meth:`shared.broker.cluster.servers.Servers.exchange`."""
        if not self.topology.is_known:
            await self.topology.read()
        replies: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        for _ in range(_TRIES):
            await self._send(commands, left, replies)
            left = [place for place in left if _is_to_repeat(replies[place])]
            if not left:
                return replies
            await self.topology.read()
        return [SlotMoved(f"TRYAGAIN {reply}") if is_away(reply) else reply for reply in replies]

    async def on_each(self, command: Command) -> Mapping[Node, Any]:
        """See :meth:`shared.broker.cluster.servers.Servers.on_each`."""
        if not self.topology.is_known:
            await self.topology.read()
        nodes = self.nodes
        replies = await asyncio.gather(*(self._send_to(node, [command]) for node in nodes))
        return {node: reply for node, (reply,) in zip(nodes, replies, strict=True)}

    async def aclose(self) -> None:
        await self.topology.aclose()
        for connection in self._shared.values():
            await connection.aclose()
        for task in self._closing:
            task.cancel()

    async def _send(self, commands: Sequence[Command], places: Sequence[int], replies: list[Any]) -> None:
        """Send some of the commands to their nodes, and put the replies into place."""
        self._close_old()
        by_node: dict[Node, list[tuple[int, bool]]] = {}
        for place in places:
            for node, asks in self._nodes_for(commands[place], replies[place]):
                by_node.setdefault(node, []).append((place, asks))

        async def send(node: Node, group: list[tuple[int, bool]]) -> None:
            together: list[Command] = []
            for place, asks in group:
                together += [("ASKING",), commands[place]] if asks else [commands[place]]
            answers = iter(await self._send_to(node, together))
            for place, asks in group:
                if asks:
                    next(answers)
                replies[place] = next(answers)

        await asyncio.gather(*(send(node, group) for node, group in by_node.items()))

    def _close_old(self) -> None:
        """Close connections to nodes that are no masters any more."""
        for node in [node for node in self._shared if node not in self.nodes and self._shared[node].is_idle]:
            task = asyncio.create_task(self._shared.pop(node).aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _nodes_for(self, command: Command, reply: Any) -> list[tuple[Node, bool]]:
        """Return the nodes to send a command to, and if with ASKING. ``reply``: to the try before."""
        slot = slot_of_command(command)
        if slot is None:
            if command[0] != "SCRIPT":
                raise ValueError(f"{command[0]!r} has no key; use on_each")
            nodes, self._lack_scripts = self._lack_scripts or set(self.nodes), set()
            return [(node, False) for node in nodes]
        owner = self.topology.node_of_slot(slot)
        redirect = redirect_in(reply)
        if redirect is not None and redirect.asks:
            return [(self.topology.node_at(redirect, owner), True)]
        return [(owner, False)]

    async def _send_to(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        """Send commands to one node. If it fails, the reply to each is the exception."""
        if node not in self._shared:
            self._shared[node] = SharedConnection(PipelineConnection(self.url_of(node), timeout_s=self._timeout_s))
        try:
            replies = await self._shared[node].exchange(commands)
        except (RedisError, OSError) as error:
            self.note_trouble()
            return [error] * len(commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            self._lack_scripts.add(node)
        return replies


def _is_to_repeat(reply: Any) -> bool:
    """Return True if the map may have led to a wrong node. A node that is silent is not asked again."""
    is_lost = isinstance(reply, RedisConnectionError | OSError) and not isinstance(reply, TimeoutError)
    return is_lost or is_away(reply)
