"""A load of simple keys, each with a stream of commands and a channel, through one loop per node."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final, Self

from redis.exceptions import RedisError

from shared.broker.cluster.node_loops import NodeLoops
from shared.broker.cluster.servers import NodeConnection, Servers
from shared.broker.cluster.shard_channels import listen_to_shards
from shared.broker.cluster.slots import BUCKET_TAGS, slot_of
from shared.broker.trouble import Reason, classify
from shared.protocol.ids import BUCKETS

_STREAMS: Final = 100
#: Pause of a stream between an answer and its next command.
_PAUSE_S: Final = 0.05
#: Reasons that pass by themselves.
_RETRYABLE: Final = {Reason.FAILOVER, Reason.REFUSED, Reason.TIMEOUT, Reason.UNREACHABLE, Reason.LOADING}


@dataclass(eq=False)
class Stream:
    """One key. ``sent``: the number in its current command. ``answered``: commands that were answered.
    ``longest_s``: longest time between two answers."""

    tag: str
    sent: int = 1
    answered: int = 0
    longest_s: float = 0.0
    at: float = 0.0
    #: Messages of its channel, and 0 for each time from which on none is missed.
    heard: list[int] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"hr:{{{self.tag}}}:load"

    @property
    def channel(self) -> str:
        return f"hr:{{{self.tag}}}:channel"

    @property
    def slot(self) -> int:
        return slot_of(self.key)


class Load:
    """The streams, from the first answer on. ``errors``: texts of failures that do not pass by themselves."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.streams = [Stream(BUCKET_TAGS[number * BUCKETS // _STREAMS]) for number in range(_STREAMS)]
        self.errors: set[str] = set()
        self._name = token_hex(8)
        self._by_channel = {stream.channel: stream for stream in self.streams}
        self._loops = NodeLoops[Stream](servers, self._serve, lambda stream: stream.key)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        channels = list(self._by_channel)
        for coroutine in (
            self._loops.run(),
            listen_to_shards(self.servers, channels, hear=self._hear, resumed=self._resume),
        ):
            self._tasks.append(asyncio.create_task(coroutine))
        self.reset()
        for stream in self.streams:
            self._loops.put(stream)
        await self.all_go_on()
        self.reset()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def reset(self) -> None:
        """Measure from now on."""
        for stream in self.streams:
            stream.at, stream.longest_s = asyncio.get_running_loop().time(), 0.0

    def longest_s(self, streams: Collection[Stream]) -> float:
        return max(stream.longest_s for stream in streams)

    async def all_go_on(self, within_s: float = 40) -> None:
        """Wait until every stream has got three more answers, and a message of the last."""
        before = {stream: (stream.answered, stream.sent) for stream in self.streams}
        async with asyncio.timeout(within_s):
            while not all(
                stream.answered >= answered + 3 and stream.heard and stream.heard[-1] > sent
                for stream, (answered, sent) in before.items()
            ):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    def missed(self) -> list[tuple[str, list[int]]]:
        """Return where a number is missing in the messages of a channel, and there is no 0. A message may come twice,
        since its command was; and late, when a frozen master goes on."""
        found = []
        for stream in self.streams:
            latest = 0
            for at, number in enumerate(stream.heard):
                if latest and number > latest + 1:
                    found.append((stream.channel, stream.heard[max(0, at - 5) : at + 5]))
                latest = max(latest, number) if number else 0
        return found

    # --- calls of the loops and of the listener

    async def _serve(self, connection: NodeConnection, streams: list[Stream]) -> None:
        try:
            replies = await connection.exchange(
                [
                    command
                    for stream in streams
                    for command in (
                        ("SET", stream.key, stream.sent, "PX", 60_000),
                        ("SPUBLISH", stream.channel, f"{stream.tag} {self._name} {stream.sent}"),
                    )
                ]
            )
        except (RedisError, OSError) as error:
            self._check(error)
            raise
        for place, stream in enumerate(streams):
            failed = [reply for reply in replies[2 * place : 2 * place + 2] if isinstance(reply, Exception)]
            if failed:
                self._check(failed[0])
            else:
                self._count(stream)
        await asyncio.sleep(_PAUSE_S)
        for stream in streams:
            self._loops.put(stream)

    def _check(self, error: Exception) -> None:
        if classify(error, "the cluster").reason not in _RETRYABLE:
            self.errors.add(repr(error))

    def _count(self, stream: Stream) -> None:
        now = asyncio.get_running_loop().time()
        stream.longest_s, stream.at = max(stream.longest_s, now - stream.at), now
        stream.answered += 1
        stream.sent += 1

    def _hear(self, messages: list[bytes]) -> None:
        for message in messages:
            tag, name, number = message.decode().split()
            if name == self._name:  # else it was under way when an earlier load ended
                self._by_channel[f"hr:{{{tag}}}:channel"].heard.append(int(number))

    def _resume(self, channels: list[str]) -> None:
        for channel in channels:
            self._by_channel[channel].heard.append(0)
