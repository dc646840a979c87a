"""The connection of a loop to one node of a cluster."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.redirects import SlotMoved, is_away, redirect_in
from shared.broker.cluster.topology import Topology
from shared.broker.pipeline_connection import Command, PipelineConnection


class LoopConnection:
    """A connection of one loop. A command whose slot has moved is not repeated: its reply is :class:`SlotMoved`, and
    the map is read again meanwhile. Only one whose keys are in the middle of a migration is repeated at the node that
    they go to, unless that node is silent."""

    def __init__(self, topology: Topology, node: Node, *, timeout_s: float) -> None:
        self._topology = topology
        self._node = node
        self._timeout_s = timeout_s
        self._own = self._connection_to(node)
        self._targets: dict[Node, PipelineConnection] = {}  # of migrations
        self.target = self._own.target

    @property
    def far_s(self) -> float:
        """See :attr:`PipelineConnection.far_s`."""
        return self._own.far_s

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands of the node's slots; see :meth:`PipelineConnection.exchange`."""
        replies = await self._exchange(self._node, self._own, commands)
        if any(is_away(reply) for reply in replies):
            await self._follow(commands, replies)
            self._topology.read_soon()
            replies = [SlotMoved(f"TRYAGAIN {reply}") if is_away(reply) else reply for reply in replies]
        return replies

    async def aclose(self) -> None:
        for connection in (self._own, *self._targets.values()):
            with suppress(TimeoutError):  # a frozen node does not take part
                async with asyncio.timeout(self._timeout_s):
                    await connection.aclose()

    async def _exchange(self, node: Node, connection: PipelineConnection, commands: Sequence[Command]) -> list[Any]:
        try:
            replies = await connection.exchange(commands)
        except (RedisError, OSError) as error:
            if isinstance(error, TimeoutError):
                self._topology.silent.add(node)
            self._topology.read_soon()
            raise
        self._topology.silent.discard(node)
        return replies

    async def _follow(self, commands: Sequence[Command], replies: list[Any]) -> None:
        """Repeat commands at the nodes that the replies ASK name, and put the new replies into place."""
        asked: dict[Node, list[int]] = {}
        for place, reply in enumerate(replies):
            redirect = redirect_in(reply)
            if redirect is not None and redirect.asks:
                asked.setdefault(self._topology.node_at(redirect, self._node), []).append(place)
        for node, places in asked.items():
            if node in self._topology.silent:
                continue
            connection = self._targets.setdefault(node, self._connection_to(node))
            together: list[Command] = [each for place in places for each in (("ASKING",), commands[place])]
            try:
                answers = (await self._exchange(node, connection, together))[1::2]
            except (RedisError, OSError):
                continue
            for place, answer in zip(places, answers, strict=True):
                replies[place] = answer

    def _connection_to(self, node: Node) -> PipelineConnection:
        return PipelineConnection(self._topology.address.url_of(node), timeout_s=self._timeout_s)
