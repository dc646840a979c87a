"""Sharded channels: messages of channels that live in the slots of a cluster, or on one server.

There is one connection per node, with the channels of its slots. A channel follows its slot: the server ends its
subscription when the slot leaves, and so does a redirection or a broken connection.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from shared.broker.cluster.address import Node
from shared.broker.cluster.per_node import run_per_node
from shared.broker.cluster.redirects import is_away
from shared.broker.cluster.servers import Servers
from shared.broker.connection_pool import pool_of
from shared.broker.pipeline_connection import pack
from shared.broker.wire import Wire, connected

_CONNECT_S: Final = 1.0
#: Interval of PINGs on a silent connection, and the time for their answer.
_PING_EVERY_S: Final = 1.0
_ANSWER_S: Final = 2.0
_RETRY_S: Final = 0.1


async def listen_to_shards(
    servers: Servers,
    channels: Sequence[str],
    *,
    hear: Callable[[list[bytes]], None],
    resumed: Callable[[list[str]], None],
) -> None:
    """Run until cancelled. Call ``hear`` with messages, in lists of those that arrived together, and ``resumed`` with
    channels of which messages may have been missed, and from now on are not. Raises an error reply that is not about
    the cluster, such as a missing right, and the errors of both functions."""
    await run_per_node(servers, lambda node: _Listener(servers, node, channels, hear, resumed).run())


class _Listener:
    """The subscriptions at one node. ``_asked``: channels that it was asked for; ``_confirmed``: those that it
    delivers."""

    def __init__(
        self,
        servers: Servers,
        node: Node,
        channels: Sequence[str],
        hear: Callable[[list[bytes]], None],
        resumed: Callable[[list[str]], None],
    ) -> None:
        self._servers = servers
        self._node = node
        self._channels = channels
        self._hear = hear
        self._resumed = resumed
        self._asked = set[str]()
        self._confirmed = set[str]()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except _Refused as error:
                raise error.reply from None
            except (RedisError, OSError):
                self._servers.note_trouble()
                await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        self._asked, self._confirmed = set(), set()
        pool = pool_of(self._servers.url_of(self._node), timeout_s=None, connections=1)
        wire: Wire | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                wire = await connected(pool, self._take)
            await self._keep(wire)
        finally:
            if wire is not None:
                await wire.close()
            await pool.aclose()

    async def _keep(self, wire: Wire) -> None:
        """Keep the subscriptions those of the node's slots, until the connection is lost."""
        loop = asyncio.get_running_loop()
        reads, read_at, pinged_at = wire.reads, loop.time(), loop.time()
        asked_at: float | None = None  # of the first PING without an answer
        while True:
            version = self._servers.version
            self._moved.clear()
            self._adjust(wire)
            await self._something(wire, version, _PING_EVERY_S if self._asked == self._confirmed else _RETRY_S)
            if wire.lost.done():
                wire.lost.result()
            if wire.reads != reads:
                reads, read_at, asked_at = wire.reads, loop.time(), None
            elif asked_at is not None and loop.time() - asked_at > _ANSWER_S:
                raise TimeoutError
            if loop.time() - max(read_at, pinged_at) >= _PING_EVERY_S:
                pinged_at = loop.time()
                asked_at = pinged_at if asked_at is None else asked_at
                wire.send(pack(("PING",)))

    def _adjust(self, wire: Wire) -> None:
        wanted = {channel for channel in self._channels if self._servers.node_of(channel) == self._node}
        commands = [("SSUBSCRIBE", channel) for channel in self._channels if channel in wanted - self._asked]
        commands += [("SUNSUBSCRIBE", channel) for channel in self._channels if channel in self._asked - wanted]
        self._asked = wanted
        if commands:  # one command for each, since those of one command must have one slot
            wire.send(b"".join(map(pack, commands)))

    async def _something(self, wire: Wire, version: int, timeout_s: float) -> None:
        """Wait until the map has changed, a subscription has ended, or the connection is lost."""
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._servers.changed_since(version)),
            asyncio.ensure_future(self._moved.wait()),
        ]
        try:
            await asyncio.wait([wire.lost, *tasks], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _take(self, replies: list[Any]) -> None:
        messages: list[bytes] = []
        begun: list[str] = []
        for reply in replies:
            if isinstance(reply, Exception):
                if not is_away(reply):
                    raise _Refused(reply)
                self._lose(None)
            elif reply[0] == b"smessage":
                messages.append(reply[2])
            elif reply[0] == b"ssubscribe":
                begun.append(reply[1].decode())
            elif reply[0] == b"sunsubscribe":
                self._lose(reply[1].decode())
        self._confirmed.update(begun)
        if messages:
            self._hear(messages)
        if begun:
            self._resumed(begun)

    def _lose(self, channel: str | None) -> None:
        """Note that the node does not deliver a channel, or, if it does not name one, those it did not confirm."""
        if channel is None:
            self._asked &= self._confirmed
        else:
            was_wanted = channel in self._asked
            self._asked.discard(channel)
            self._confirmed.discard(channel)
            if not was_wanted:  # we ended it ourselves
                return
        self._servers.note_trouble()
        self._moved.set()


class _Refused(Exception):
    """An error reply that a new connection would not change."""

    def __init__(self, reply: Exception) -> None:
        super().__init__(str(reply))
        self.reply = reply
