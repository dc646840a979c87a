"""The actors of a walk: hubs and subscriptions that move step by step, workers, viewers, and Redis' content."""

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.live.feed import Entry, Feed
from gateway.live.hub import Hub
from gateway.live.subscription import Subscription
from shared.broker.client import REDIS_ERRORS, RedisConnection, run_script
from shared.broker.ending import Outcome
from shared.broker.replies import Claimed, Code, Gone, LogPage, Lost
from shared.broker.scripts import Holder, StreamScripts
from shared.protocol import events
from shared.protocol.events import Done, Start
from shared.protocol.ids import EventId
from shared.protocol.lifecycle import TERMINAL, Status
from shared.protocol.lineage import Lineage
from tests.walks.bench import (
    LOST_AFTER_S,
    TIGHT,
    Bench,
)
from workers.writing.phases import Ended
from workers.writing.writer import StreamWriter


class SteppedHub(Hub):
    """A hub whose real loop over the tails reads on command, without blocking."""

    def __init__(self, bench: Bench, scripts: StreamScripts, name: str, *, forgives: bool) -> None:
        super().__init__(bench.client, scripts, TIGHT, name)
        self._line = bench.line
        self._forgives = forgives
        self._mail: deque[bytes] = deque()
        self.lost_after_s = LOST_AFTER_S
        self._words: asyncio.Queue[str] = asyncio.Queue()
        self._waits = False
        self._follower = bench.loop.create_task(self._follow())

    def caught_up(self, feed: Feed, at: EventId) -> None:
        ahead = feed.position is not None and feed.position.epoch == at.epoch and feed.position.seq > at.seq
        if self._forgives and ahead:  # see test_an_end_lost_and_healed_between_two_comparisons
            feed.rewind(at)
        super().caught_up(feed, at)

    async def read(self, stream_id: str, after: EventId) -> LogPage | Gone | Lost | None:
        """Read small pages."""
        return await run_script(self._client, self._scripts.read(stream_id, after, most_events=2))

    async def read_on(self, *words: str) -> None:
        for word in words:
            self._waits = False
            self._words.put_nowait(word)
            while not self._waits:
                if self._follower.done():
                    self._follower.result()
                await asyncio.sleep(0)

    def put(self, message: bytes) -> None:
        """Put a message on its way to this gateway."""
        self._mail.append(message)

    @property
    def has_mail(self) -> bool:
        return bool(self._mail)

    def hear_next(self, *, is_lost: bool = False) -> None:
        message = self._mail.popleft()
        if not is_lost:
            self._hear([message])

    async def compare(self, stream_id: str) -> None:
        self.leases.compare_soon()
        await self.leases.report(self._line, [stream_id])

    async def close(self) -> None:
        self._follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._follower

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(*REDIS_ERRORS):
                await self._read_tails(self._line, [])

    async def _fetch(self, connection: RedisConnection, feeds: Sequence[Feed]) -> list[tuple[Feed, list[Entry]]]:
        """Read the tails of all feeds, grown or not; lost notifications are tested elsewhere."""
        fetched: list[tuple[Feed, list[Entry]]] = []
        while True:
            self._waits = True
            word = await self._words.get()
            live = {feed.tail_key: feed for feed in self._feeds.values() if feed.position is not None}
            if word == "wake":  # the list of tails is made anew
                return []
            if word == "fetch" and live:
                cursors = [feed.tail_cursor for feed in live.values()]
                (answer,) = await connection.exchange([("XREAD", "COUNT", 2, "STREAMS", *live, *cursors)])
                fetched = [(live[key], entries) for key, entries in answer or []]
            if word == "deliver":
                return fetched


class SteppedSubscription(Subscription):
    """A subscription that shows when it waits for a change."""

    parked = False

    async def _wait(self, feed: Feed, version: int) -> None:
        self.parked = True
        try:
            await super()._wait(feed, version)
        finally:
            self.parked = False


class Cursor(NamedTuple):
    """Place in a stored answer of a walk: the epoch of the log, the signature of the answer, its deltas so far."""

    epoch: int
    uid: int
    deltas: int

    @property
    def text(self) -> str:
        return f"{self.epoch} {self.uid} {self.deltas}"

    def of_epoch(self, epoch: int) -> str:
        return self._replace(epoch=epoch).text

    @classmethod
    def of(cls, fields: Mapping[str, bytes]) -> "Cursor | None":
        text = fields.get("provider_cursor", b"-").decode()
        return None if text == "-" else cls(*map(int, text.split()))


@dataclass
class Worker:
    """One job at a time: the attempt it writes, or an ending that it goes about; and the answers it wrote lately."""

    name: str
    uid: int = 0
    claim: tuple[Claimed, str] | None = None
    writer: StreamWriter | None = None
    deltas: int = 0
    job: asyncio.Task[Ended] | None = None
    ending: Outcome | None = None
    lingering: list[StreamWriter] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return self.writer is None and self.ending is None

    @property
    def generates(self) -> bool:
        return self.writer is not None and self.job is None and not self.writer.stop_reason

    @property
    def remembers(self) -> list[StreamWriter]:
        return [*self.lingering, *([self.writer] if self.writer is not None else [])]

    def be_done(self) -> None:
        """The job is over."""
        assert self.job is not None
        assert self.writer is not None
        if self.job.result() is Ended.WRITTEN:
            self.lingering.append(self.writer)
        self.writer = self.job = None

    def crash(self) -> None:
        if self.job is not None:
            self.job.cancel()
        self.writer = self.job = self.ending = None
        self.lingering.clear()


@dataclass
class Viewer:
    """Reader of the walk. ``held``: the events it shows. ``last_id``: the last id it saw. ``ending``: the reason of
    the final frame."""

    held: list[tuple[EventId, bytes]] = field(default_factory=list)
    last_id: str | None = None
    ending: str = ""
    subscription: SteppedSubscription | None = None
    chunks: AsyncGenerator[bytes, None] | None = None
    asking: asyncio.Task[bytes] | None = None

    @property
    def busy(self) -> bool:
        return self.asking is not None and not self.asking.done() and not self.connected.parked

    @property
    def connected(self) -> SteppedSubscription:
        assert self.subscription is not None
        return self.subscription

    async def drop(self) -> None:
        if self.asking is not None:
            self.asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await self.asking
        if self.chunks is not None:
            await self.chunks.aclose()
        self.subscription = self.chunks = self.asking = None


@dataclass(frozen=True)
class Redis:
    """All that Redis has of the stream. ``log``: the events, in chunks and in the tail; ``log_bytes``: the
    stored size of the chunks."""

    state: dict[bytes, bytes]
    log: list[bytes]
    tail: list[tuple[EventId, bytes]]
    tombstone: bytes | None
    next_look: float | None = None
    lives: list[int] = field(default_factory=list)
    log_bytes: int = 0

    @property
    def missing(self) -> bool:
        return not self.state

    @property
    def epoch(self) -> int:
        return int(self.state[b"epoch"])

    @property
    def settled(self) -> bool:
        """It has ended, and the desk knows."""
        return self.ended and b"owed" not in self.state

    @property
    def done(self) -> bool:
        """It is settled, and in the archive if that has to have it."""
        return self.settled and b"unarchived" not in self.state

    @property
    def log_epoch(self) -> int:
        return int(self.state[b"log_epoch"])

    def id_of(self, seq: int) -> EventId:
        return EventId(Lineage(self.state.get(b"lineage", b"").decode()).epoch_of(seq, self.log_epoch), seq)

    @property
    def active(self) -> bool:
        return not self.missing and not self.ended

    @property
    def held(self) -> bool:
        """Leases here last for minutes, or have been ended."""
        return self.active and int(self.state.get(b"lease_until", 0)) > time.time_ns() // 1_000_000 + 10_000

    @property
    def ended(self) -> bool:
        return not self.missing and Status(self.state[b"status"].decode()) in TERMINAL

    def refusal(self, holder: Holder) -> Code | None:
        """Return the refusal that this writer must get, in the order of rule A1; None if it may write."""
        if self.missing:
            return Code.CLOSED if (self.tombstone or b"live").startswith((b"deleted", b"dropped")) else Code.MISSING
        if self.ended:
            return Code.CLOSED
        if self.epoch > holder.epoch:
            return Code.SUPERSEDED
        if self.epoch < holder.epoch:
            return Code.BEHIND
        return None if self.state.get(b"holder") == holder.token.encode() else Code.SUPERSEDED


_FRAME: Final = re.compile(rb"(?:id: (\d+-\d+)\n)?event: (\w+)\ndata: (.*)\n\n")
_SIGNED: Final = re.compile(r"(\d+)\.(\d+) ")


def check_one_attempt(stored: list[bytes], *, whole: bool = False) -> None:
    """These events are the first of one attempt, in order, without a hole; nothing comes after `done`."""
    run_of = [events.decode(event) for event in stored]
    signed = [
        (int(uid), int(number))
        for event in run_of
        for uid, number in _SIGNED.findall(getattr(event, "token", "") + getattr(event, "text", ""))
    ]
    uids = {uid for uid, _ in signed} | {int(event.model) for event in run_of if isinstance(event, Start)}
    assert len(uids) <= 1, f"mixes the attempts {uids}: {stored}"
    assert [number for _, number in signed] == list(range(len(signed))), f"a hole or a duplicate: {stored}"
    starts = [i for i, event in enumerate(run_of) if isinstance(event, Start)]
    assert starts in ([], [0]), f"start in the middle: {stored}"
    assert not signed or starts, f"no start: {stored}"
    ends = [i for i, event in enumerate(run_of) if isinstance(event, Done)]
    assert ends in ([], [len(stored) - 1]), f"something after done: {stored}"
    assert not whole or ends, f"no done: {stored}"
    if ends and isinstance(done := run_of[-1], Done) and done.finish_reason == "stop":
        assert done.usage is not None
        said = done.usage.output_tokens
        assert len(signed) == said or (done.usage.estimated and len(signed) < said), f"done too soon: {stored}"
        assert uids <= {done.usage.input_tokens}, f"another attempt's done: {stored}"
