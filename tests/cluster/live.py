"""Live streams of a system on a cluster, read by clients that reconnect, with the pauses that these clients see."""

import asyncio
import itertools
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from shared.broker.cluster.slots import slot_of
from shared.broker.keys import state_key
from tests.broker_cluster import Node
from tests.cluster.system import ClusterSystem
from tests.fakes.answer import Answer
from tests.sse_client import Broken, Frame, SseConnection, text_of

_MODEL: Final = "endless"
#: Pause of a client between two tries to connect.
_RETRY_S: Final = 0.2


@dataclass(eq=False)
class Reader:
    """One stream and its client. ``longest_s``: the longest pause between two frames; ``at``: time of the last."""

    prompt: str
    stream_id: str
    connection: SseConnection
    frames: list[Frame] = field(default_factory=list)
    longest_s: float = 0.0
    at: float = 0.0

    @property
    def tokens(self) -> int:
        return len([frame for frame in self.frames if frame.event == "token"])

    async def read(self, system: ClusterSystem) -> None:
        """Read the rest of the stream. A connection that ends early is opened again, at another gateway."""
        for gateway in itertools.count():
            try:
                async with self.connection:
                    async for frame in self.connection.frames():
                        self._take(frame)
            except (Broken, OSError):
                await self._reconnect(system, gateway % len(system.gateways))
            else:
                return

    def _take(self, frame: Frame) -> None:
        now = time.monotonic()
        self.frames.append(frame)
        self.longest_s, self.at = max(self.longest_s, now - self.at), now

    async def _reconnect(self, system: ClusterSystem, gateway: int) -> None:
        last = next(frame.id for frame in reversed(self.frames) if frame.id is not None)
        while True:
            self.connection = await system.read(self.stream_id, last, gateway=gateway)
            if self.connection.status == 200:
                return
            self.connection.cut()
            await asyncio.sleep(_RETRY_S)


class Live:
    """``count`` streams over all gateways, from their first tokens on, that go on until :meth:`check`. Each gets a
    token in each ``pace_s``."""

    def __init__(self, system: ClusterSystem, count: int, pace_s: float) -> None:
        self._system = system
        self._count = count
        self._pace_s = pace_s
        self._is_over = False
        self._reading: list[asyncio.Task[None]] = []
        self.readers: list[Reader] = []

    async def __aenter__(self) -> Self:
        system = self._system
        system.fake.calls.clear()
        system.fake.play(_MODEL, Answer(deltas=self._words, delay_s=self._pace_s))
        for number in range(self._count):
            prompt = f"stream {number}"
            connection = await system.stream(_MODEL, prompt, gateway=number % len(system.gateways))
            self.readers.append(Reader(prompt, connection.stream_id, connection))
            self._reading.append(asyncio.create_task(self.readers[-1].read(system)))
        await self.all_go_on()
        self.reset()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        for task in self._reading:
            task.cancel()
        await asyncio.wait(self._reading)

    def reset(self) -> None:
        """Measure pauses from now on."""
        for reader in self.readers:
            reader.at, reader.longest_s = time.monotonic(), 0.0

    async def all_go_on(self, within_s: float = 60) -> None:
        """Wait until every stream has got three more tokens."""
        before = {reader: reader.tokens for reader in self.readers}
        async with asyncio.timeout(within_s):
            while not all(reader.tokens >= tokens + 3 for reader, tokens in before.items()):
                for task in self._reading:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.1)

    async def of(self, master: Node) -> list[Reader]:
        """Return the readers whose streams a master has."""
        cluster = self._system.cluster
        owned = set(await cluster.slots_of(master, [state_key(reader.stream_id) for reader in self.readers]))
        return [reader for reader in self.readers if slot_of(state_key(reader.stream_id)) in owned]

    def longest_s(self, readers: Collection[Reader] | None = None) -> float:
        """Return the longest pause of these readers, or of all."""
        return max((reader.longest_s for reader in (self.readers if readers is None else readers)), default=0.0)

    async def check(self, within_s: float = 60) -> None:
        """End all streams. Each must have got every token once, in order, and one ending, from one call of its
        provider."""
        self._is_over = True
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._reading)
        sent = {call.prompt: call.sent_deltas for call in self._system.fake.calls if call.model == _MODEL}
        assert len([call for call in self._system.fake.calls if call.model == _MODEL]) == self._count
        for reader in self.readers:
            text = "".join(itertools.islice(_words(), sent[reader.prompt]))
            assert not any(frame.data.get("reset") for frame in reader.frames)
            assert text_of(reader.frames) == text
            assert [frame.data["finish_reason"] for frame in reader.frames if frame.event == "done"] == ["stop"]
            assert (await self._system.status(reader.stream_id))["text"] == text

    def _words(self, _: int) -> Iterator[str]:
        return itertools.takewhile(lambda _: not self._is_over, _words())


def _words() -> Iterator[str]:
    return (f"w{number} " for number in itertools.count())
