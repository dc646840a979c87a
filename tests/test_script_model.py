"""Random walks through the protocol's rules (docs/protocol-rules.md) on a real Redis, with every fault that the
protocol must survive.

Scripts, writer, hub, feeds and subscriptions are the real ones. The test only drives them, one step at a time, on a
loop with a clock of its own. Each attempt signs its events, so that a mix of two attempts shows. A viewer is a client
that sees only frames: it shows events as they arrive and clears them at a reset.

A seed determines a walk completely; a walk that breaks a rule is reduced to the moves that matter.
``HEADRACE_MODEL_EXAMPLES=5000`` makes a soak run of it, over other walks each time; ``HEADRACE_MODEL_MUTATIONS=1``
also takes the checks out of the scripts, one by one, and demands that a walk notices.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest

from gateway.dialects.native import Native
from gateway.live import feed as feed_module
from gateway.live.feed import Entry, Feed
from gateway.live.hub import Hub
from gateway.live.subscription import Subscription
from shared.broker import declarations
from shared.broker.client import Client, run_script
from shared.broker.declarations import Call, Script
from shared.broker.ending import Outcome, end_claimed, holder_of
from shared.broker.keys import stream_keys
from shared.broker.pipeline_connection import Command, PipelineConnection
from shared.broker.replies import Claimed, Code, Gone, LogPage, Lost, Refused, WriteReply
from shared.broker.scripts import Holder, StreamScripts
from shared.errors import BrokerUnavailable, GenerationError
from shared.protocol import events
from shared.protocol.events import Done, Start, Usage
from shared.protocol.ids import EventId, parse_cursor, parse_event_id
from shared.protocol.lifecycle import TERMINAL, TRANSITIONS, Status, is_allowed
from shared.rate_limits import Demand, Limits
from shared.settings import Settings
from tests.broker import Broker
from workers.providers.base import ReasoningDelta, TextDelta
from workers.writing.writer import Ended, StopReason, StreamWriter

T = TypeVar("T")
DEMAND: Final = Demand("an-account", Limits(), 0)

SOAK: Final = int(os.environ.get("HEADRACE_MODEL_EXAMPLES", "0"))
MUTATIONS: Final = bool(os.environ.get("HEADRACE_MODEL_MUTATIONS"))
EXAMPLES: Final = SOAK or 400
STEPS: Final = 40

#: Smaller than the settings allow, so that short walks meet trims, full windows and page ends.
CAP: Final = 4
TIGHT: Final = Settings.model_construct(
    cap=CAP, window=3, lease_s=600.0, reader_lease_s=600.0, max_attempts=3, max_event_bytes=4096, max_tick_s=0.0
)
#: Virtual seconds after which a reader's stream counts as lost.
LOST_AFTER_S: Final = 2.0
LONGEST_ANSWER: Final = 8
STATE, LOG, TAIL, READERS, INDEX, TOMBSTONE, PULSE, _IDEMPOTENCY = range(8)
DIGEST: Final = "ab" * 32
#: Time by which Redis' clock advances whenever Redis loses something, in ms since the stream's creation.
AGE_MS: Final = 1_000_000

FATE: Final = ("answered", "answered", "answered", "reply lost", "request lost", "delayed", "doubled")
PICK: Final = (0, 1)
MOSTLY: Final = (True, True, True, False)


class MovableClock(asyncio.SelectorEventLoop):
    """A loop with a clock that the test advances."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


Transition = tuple[str, Status | None, Status | None]


class Observer:
    """Compares each run of a script of one stream with the table of transitions."""

    def __init__(self) -> None:
        self.seen: set[Transition] = set()

    async def exchange(
        self, exchange: Callable[[Sequence[Command]], Awaitable[list[Any]]], commands: Sequence[Command]
    ) -> list[Any]:
        """Send the commands, each script between two looks at the status."""
        names = {script.sha: script.name for script in vars(declarations).values() if isinstance(script, Script)}
        wrapped: list[Command] = []
        for command in commands:
            look: list[Command] = [("HGET", command[3], "status")] if _is_of_a_stream(command) else []
            wrapped += [*look, command, *look]
        replies, kept = iter(await exchange(wrapped)), []
        for command in commands:
            if not _is_of_a_stream(command):
                kept.append(next(replies))
                continue
            before, reply, after = (next(replies) for _ in range(3))
            kept.append(reply)
            self._check(names[str(command[1])], before, after)
        return kept

    def _check(self, script: str, *raw: bytes | None) -> None:
        before, after = (None if status is None else Status(status.decode()) for status in raw)
        assert is_allowed(script, before, after), f"{script} took a stream from {before} to {after}"
        self.seen.add((script, before, after))


def _is_of_a_stream(command: Command) -> bool:
    return command[0] == "EVALSHA" and str(command[3]).endswith(":state")


class ObservedClient(Client):
    def __init__(self, url: str, observer: Observer) -> None:
        super().__init__(url, timeout_s=5, connections=32, serves=False)
        self._observer = observer

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return await self._observer.exchange(super().exchange, commands)


class ObservedConnection(PipelineConnection):
    def __init__(self, url: str, observer: Observer) -> None:
        super().__init__(url)
        self._observer = observer

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return await self._observer.exchange(super().exchange, commands)


class Bench:
    """Shared parts of all walks: a broker of their own, a loop, connections."""

    def __init__(self, folder: Path) -> None:
        self.loop = MovableClock()
        self.broker = Broker(folder)
        self.run(self.broker.start())
        self.observer = Observer()
        self.client = ObservedClient(self.broker.url, self.observer)
        self.line = ObservedConnection(self.broker.url, self.observer)
        self.run_id: str = self.run(self.client.info("server"))["run_id"]
        self.numbers = itertools.count(1)

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.client.aclose())
        self.run(self.line.aclose())
        self.broker.kill()
        self.loop.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("model"))
    yield bench
    bench.close()


# --- the drivers of gateway and worker


class SteppedHub(Hub):
    """A hub whose real loop over the tails reads on command, without blocking."""

    def __init__(self, bench: Bench, scripts: StreamScripts, name: str, *, forgives: bool) -> None:
        super().__init__(bench.client, bench.line, bench.line, scripts, TIGHT, name)
        self._forgives = forgives
        self.lost_after_s = LOST_AFTER_S
        self._words: asyncio.Queue[str] = asyncio.Queue()
        self._waits = False
        self._has_unread.set()
        self._follower = bench.loop.create_task(self.follow_tails())

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

    async def compare(self) -> None:
        await self._compare()
        await self._send_pending()

    async def close(self) -> None:
        self._follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._follower

    async def _read_tails(self, feeds: list[Feed]) -> list[tuple[Feed, list[Entry]]]:
        """Read the tails of all feeds, grown or not; lost notifications are tested elsewhere."""
        fetched: list[tuple[Feed, list[Entry]]] = []
        while True:
            self._waits = True
            word = await self._words.get()
            self._has_unread.set()  # so that its loop comes back here
            live = {feed.tail_key: feed for feed in self._feeds.values() if feed.position is not None}
            if word == "wake":  # the list of tails is made anew
                return []
            if word == "fetch" and live:
                cursors = [feed.tail_cursor for feed in live.values()]
                (answer,) = await self._tails.exchange([("XREAD", "COUNT", 2, "STREAMS", *live, *cursors)])
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
    """``held``: the events it shows. ``last_id``: the last id it saw. ``ending``: the reason of the final frame."""

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
    """All that Redis has of the stream."""

    state: dict[bytes, bytes]
    log: list[bytes]
    tail: list[tuple[EventId, bytes]]
    tombstone: bytes | None
    next_look: float | None = None
    lives: list[int] = field(default_factory=list)

    @property
    def missing(self) -> bool:
        return not self.state

    @property
    def epoch(self) -> int:
        return int(self.state[b"epoch"])

    @property
    def log_epoch(self) -> int:
        return int(self.state[b"log_epoch"])

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
            return Code.CLOSED if (self.tombstone or b"").startswith(b"deleted") else Code.MISSING
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


@dataclass(frozen=True)
class Move:
    """A possible move: its weight, its condition and the choices of its arguments."""

    do: Callable[..., Awaitable[None]]
    weight: float
    may: Callable[["Walk"], object]
    choices: dict[str, Sequence[object]]


MOVES: dict[str, Move] = {}
Steps = list[tuple[str, dict[str, Any]]]
Do = TypeVar("Do", bound=Callable[..., Awaitable[None]])


def move(
    weight: float, may: Callable[["Walk"], object] = lambda _: True, **choices: Sequence[object]
) -> Callable[[Do], Do]:
    def enter(do: Do) -> Do:
        MOVES[do.__name__] = Move(do, weight, may, choices)
        return do

    return enter


class Walk:
    """One stream, two workers, two gateways, two viewers."""

    def __init__(self, bench: Bench, *, forgives: bool = True) -> None:
        """``forgives``: leave out the defect that the last test of this module shows."""
        self.forgives = forgives
        self.bench = bench
        self.scripts = StreamScripts(TIGHT)
        self.client: Client = bench.client
        number = next(bench.numbers)
        self.stream_id = f"{DIGEST[:2]}{number:032x}"
        self.keys = stream_keys(self.stream_id, DIGEST)
        self.workers = [Worker("w0"), Worker("w1")]
        self.viewers = [Viewer(), Viewer()]
        self.hubs = [SteppedHub(bench, self.scripts, f"g{i}", forgives=forgives) for i in range(2)]
        self.woken: dict[StreamWriter, None] = {}
        self.uids = itertools.count(1)
        self.tokens = itertools.count(1)
        self.delayed: list[tuple[Call[Any], Holder | None]] = []
        self.shown: dict[EventId, bytes] = {}
        self.epochs: list[int] = []
        self.snapshot: dict[str, tuple[bytes, int]] | None = None
        self.age = 1
        self.claims_at_this_age = 0
        self.deleted = False
        self.buried = False  # deleted, and Redis has lost nothing since
        self.redis = Redis({}, [], [], None)  # as it was after the last move

    async def do(self, name: str, **arguments: Any) -> None:
        """One move; then all that it set going until nothing moves."""
        await MOVES[name].do(self, **arguments)
        await self._settle()
        await self._check_redis()

    async def _settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        while any(viewer.busy for viewer in self.viewers):
            await asyncio.sleep(0)
        for worker in self.workers:
            self._handle_stop(worker)
        for _ in range(3):
            await asyncio.sleep(0)
        for worker in self.workers:
            if worker.job is not None and worker.job.done():
                worker.be_done()

    # --- the state of Redis, and its invariants

    async def _look(self) -> Redis:
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.hgetall(self.keys[STATE])
            pipe.lrange(self.keys[LOG], 0, -1)
            pipe.xrange(self.keys[TAIL])
            pipe.get(self.keys[TOMBSTONE])
            pipe.zscore(self.keys[INDEX], self.stream_id)
            for key in self.keys:
                pipe.pexpiretime(key)
            state, log, tail, tombstone, next_look, *lives = await pipe.execute()
        entries = [(parse_event_id(at.decode()), fields[b"e"]) for at, fields in tail]
        return Redis(state, log, entries, tombstone, next_look, lives)

    async def _check_redis(self) -> None:
        redis = self.redis = await self._look()
        ids = [at for at, _ in redis.tail]
        assert len(ids) <= CAP, "the tail is longer than its cap"
        assert ids == sorted(set(ids)), "the tail's ids do not rise"
        assert redis.missing or not self.buried, "a deleted stream has come back"
        if redis.missing:
            assert not redis.log
            return
        check_one_attempt(redis.log, whole=redis.ended)
        assert redis.ended or not any(map(events.is_done, redis.log)), "done before the terminal state"
        of_log = {EventId(redis.log_epoch, i + 1): event for i, event in enumerate(redis.log)}
        of_tail = {at: event for at, event in redis.tail if at.epoch == redis.log_epoch}
        assert of_tail.items() <= of_log.items(), "log and tail disagree"
        assert not of_log or redis.tail[-1] == list(of_log.items())[-1], "the tail misses the newest event"
        for at in of_log.keys() & self.shown.keys():
            assert of_log[at] == self.shown[at], f"{at} was shown with another content"
        self._check_lives(redis)

    def _check_lives(self, redis: Redis) -> None:
        state, log, tail, readers, index, tombstone, _pulse, idempotency = redis.lives
        assert -1 not in redis.lives, f"a key without expiry: {redis.lives}"
        together = {log, readers, idempotency} if redis.ended else {log, tail, readers, idempotency}
        assert together <= {state, -2}, f"keys expire at different instants: {redis.lives}"
        assert tail <= state, f"the tail outlives the stream: {redis.lives}"
        assert tombstone > state
        assert (redis.next_look is None) == redis.ended, "the index is wrong"
        assert redis.ended or index >= state

    # --- calls

    async def _send(self, call: Call[T], holder: Holder | None) -> T:
        """Send a writer's call. A refused call changes nothing."""
        before = await self._look()
        reply = await run_script(self.client, call)
        if holder is not None and isinstance(reply, WriteReply):
            refusal = before.refusal(holder)
            if call.script.name == "restore":  # a restore is allowed only where other calls are refused
                healed = refusal in {Code.MISSING, Code.BEHIND}
                refusal = Code.OK if healed else refusal or Code.GAP
            if refusal is None:
                assert reply.code in {Code.OK, Code.FULL, Code.GAP, Code.WATCHED}
            else:
                assert reply.code is refusal, f"{call.script.name} of {holder}: {reply} instead of {refusal}"
            if refusal not in {None, Code.OK}:
                assert await self._look() == before, f"{call.script.name} of {holder} changed Redis: {reply}"
        if isinstance(reply, Claimed):
            if before.held and before.state[b"holder"] == str(call.arguments[0]).encode():
                assert await self._look() == before, "a repeated claim changed Redis"
                return reply
            assert not before.held, "a held stream was claimed"
            assert reply.epoch > max(self.epochs, default=0), f"epoch {reply.epoch} after {self.epochs}"
            self.epochs.append(reply.epoch)
            self.claims_at_this_age += 1
        return reply

    async def _faulty(self, call: Call[T], holder: Holder | None, fate: str) -> T | BrokerUnavailable:
        """Send a call with a fate, and return the reply that its sender gets. Delayed and doubled requests arrive
        (again) at any later time."""
        if fate in {"delayed", "doubled"}:
            self.delayed.append((call, holder))
        if fate in {"delayed", "request lost"}:
            return BrokerUnavailable()
        reply = await self._send(call, holder)
        return BrokerUnavailable() if fate == "reply lost" else reply

    async def _patch(self, lua: str, *more_keys: str) -> None:
        """Change the state (KEYS[1]), if there is one, as if time had passed."""
        keys = self.keys[STATE], *more_keys
        await self.client.eval(f"if redis.call('EXISTS', KEYS[1]) == 1 then {lua} end", len(keys), *keys)  # type: ignore[misc]

    async def _set_clock(self) -> None:
        """Time stands still between claims, and has moved on when Redis has lost something: so an epoch rises by
        the state or by the clock, independently of this machine's speed."""
        age = self.age * AGE_MS - 20 * self.claims_at_this_age
        now = "redis.call('TIME')[1] * 1000 + math.floor(redis.call('TIME')[2] / 1000)"
        await self._patch(f"redis.call('HSET', KEYS[1], 'created', {now} - {age})")

    async def _pulse(self) -> None:
        """Write a pulse without an outage, so that no claim has to wait (rule E7)."""
        now_s, _ = await self.client.time()
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.delete(self.keys[PULSE])
            pipe.hset(self.keys[PULSE], mapping={"at": now_s * 1000 + 60_000, "run_id": self.bench.run_id})
            pipe.expire(self.keys[PULSE], 600)
            await pipe.execute()

    async def _expire_lease(self) -> None:
        await self._patch("redis.call('HSET', KEYS[1], 'lease_until', 0)")

    # --- the walk begins

    @contextlib.asynccontextmanager
    async def begun(self, on_disconnect: str = "continue", on_worker_lost: str = "restart") -> AsyncIterator[None]:
        fields: dict[str, str | bytes | int] = {
            "principal": "p",
            "provider": "fake",
            "model": "m",
            "request": "{}",
            "prompt_characters": 0,
            "on_disconnect": on_disconnect,
            "grace_ms": 0,
            "on_worker_lost": on_worker_lost,
            "body_hash": "ff",
            "idempotency": DIGEST,
        }
        await self.client.flushall()
        creation = self.scripts.create(
            self.stream_id, fields=fields, body_hash="ff", idempotency=DIGEST, demand=DEMAND, job=b"job"
        )
        await run_script(self.client, creation)
        try:
            yield
        finally:
            await self._close()

    @property
    def is_over(self) -> bool:
        """Nothing is left that could change anything."""
        lost = self.redis.missing and not self.healers
        seen = self.redis.ended and all(viewer.ending for viewer in self.viewers)
        return (lost or seen) and not self.delayed and self.snapshot is None

    # --- workers

    def worker(self, pick: int, condition: Callable[[Worker], object]) -> Worker:
        able = [worker for worker in self.workers if condition(worker)]
        return able[pick % len(able)]

    @property
    def remembered(self) -> list[StreamWriter]:
        return [writer for worker in self.workers for writer in worker.remembers]

    @property
    def healers(self) -> list[StreamWriter]:
        """Return the remembered writers that can still restore the stream."""
        return [writer for writer in self.remembered if writer.is_written or not writer.is_settled]

    @move(
        4,
        lambda self: self.redis.active and any(worker.idle for worker in self.workers),
        pick=PICK,
        fate=FATE,
        lease_over=MOSTLY,
        well=MOSTLY,
        remembered=(True, False),
    )
    async def claim(self, *, pick: int, fate: str, lease_over: bool, well: bool, remembered: bool) -> None:
        """``remembered``: Redis as it was before, for a failover to come."""
        if remembered:
            await self.remember()
        if lease_over:
            await self._expire_lease()
        await self._claim(self.worker(pick, lambda worker: worker.idle), fate, well=well)

    async def _claim(self, worker: Worker, fate: str, *, well: bool) -> None:
        if well:
            await self._pulse()
        await self._set_clock()
        token = f"{worker.name}.{next(self.tokens):x}"
        claimed = await self._faulty(self.scripts.claim(self.stream_id, token), None, fate)
        if not isinstance(claimed, Claimed):
            return
        worker.claim = claimed, token
        lost = claimed.attempt > TIGHT.max_attempts or (
            claimed.readable and claimed.fields["on_worker_lost"] == b"fail"
        )
        if claimed.signal:
            worker.ending = Outcome.cancelled(claimed.signal)
        elif lost:
            worker.ending = Outcome.failed(GenerationError("worker_lost", "lost"))
        else:
            self._begin(worker)

    def _begin(self, worker: Worker) -> None:
        assert worker.claim is not None
        worker.uid, worker.deltas = next(self.uids), 0
        worker.writer = self._writer(worker.uid, *worker.claim)

    def _writer(self, uid: int, claimed: Claimed, token: str) -> StreamWriter:
        def wake(writer: StreamWriter) -> None:
            self.woken[writer] = None

        # An estimate from so many characters identifies the worker that made it.
        fields = claimed.fields | {"prompt_characters": str(4 * uid).encode()}
        made = StreamWriter(
            holder_of(self.stream_id, claimed, token),
            replace(claimed, fields=fields),
            settings=TIGHT,
            scripts=self.scripts,
            wake=wake,
            on_stop=lambda: None,
        )
        made.set_model("fake", str(uid))
        return made

    def _handle_stop(self, worker: Worker) -> None:
        """The job leaves its provider, and ends the stream or hands it over."""
        if worker.writer is not None and worker.writer.stop_reason and worker.job is None:
            if worker.writer.stop_reason is StopReason.HANDOVER:
                worker.job = self.bench.loop.create_task(worker.writer.hand_over())
            else:
                self._finish(worker, Outcome.cancelled(worker.writer.stop_reason))

    def _finish(self, worker: Worker, outcome: Outcome) -> None:
        """Finish as ``workers.jobs.generate`` does: without output, keep the partial answer of the attempt before."""
        assert worker.writer is not None
        assert worker.claim is not None
        if worker.claim[0].readable and not worker.writer.has_output and outcome.finish_reason != "stop":
            worker.writer, worker.ending = None, outcome
        else:
            work = worker.writer.finish(outcome, Usage(worker.uid, worker.deltas))
            worker.job = self.bench.loop.create_task(work)

    @move(
        8, lambda self: any(w.generates for w in self.workers), pick=PICK, deltas=(1, 2, 3, 5), mixed=PICK, fate=FATE
    )
    async def generate(self, *, pick: int, deltas: int, mixed: bool, fate: str) -> None:
        worker = self.worker(pick, lambda worker: worker.generates)
        await self._generate(worker, deltas, mixed=mixed)
        await self._flush(worker.writer, fate)

    async def _generate(self, worker: Worker, deltas: int, *, mixed: bool) -> None:
        """``mixed``: reasoning between the text, so that they make more events than one."""
        assert worker.writer is not None
        for _ in range(min(deltas, LONGEST_ANSWER - worker.deltas)):
            text = f"{worker.uid}.{worker.deltas} "
            kind = ReasoningDelta if mixed and worker.deltas % 2 else TextDelta
            await worker.writer.push([kind(text)])
            worker.deltas += 1

    @move(
        2, lambda self: any(w.generates for w in self.workers), pick=PICK, how=("stop", "stop", "fail", "hand over")
    )
    async def leave(self, *, pick: int, how: str) -> None:
        """The worker's own reasons to write no more."""
        worker = self.worker(pick, lambda worker: worker.generates)
        if how == "stop":
            self._finish(worker, Outcome("stop"))
        elif how == "fail":
            self._finish(worker, Outcome.failed(GenerationError("provider_unavailable", "it failed")))
        elif worker.writer is not None:
            worker.writer.stop(StopReason.HANDOVER)

    @move(6, lambda self: any(writer in self.woken for writer in self.remembered), pick=PICK, fate=FATE)
    async def flush(self, *, pick: int, fate: str) -> None:
        woken = [writer for writer in self.remembered if writer in self.woken]
        await self._flush(woken[pick % len(woken)], fate)

    async def _flush(self, writer: StreamWriter | None, fate: str) -> None:
        if writer not in self.woken:
            return
        del self.woken[writer]
        call = writer.next_call()
        if call is not None:
            writer.settle(await self._faulty(call, writer.holder, fate))

    @move(3, lambda self: self.remembered, pick=PICK, fate=FATE, for_good=(True, False))
    async def renew(self, *, pick: int, fate: str, for_good: bool) -> None:
        await self._renew(self.remembered[pick % len(self.remembered)], fate, for_good=for_good)

    async def _renew(self, writer: StreamWriter, fate: str, *, for_good: bool = False) -> None:
        """Renew as ``workers.writing.leases`` does. ``for_good``: an ended stream's events were kept for long
        enough."""
        reply = await self._faulty(self.scripts.renew(writer.holder), writer.holder, fate)
        for worker in self.workers:
            if writer is worker.writer:
                writer.settle_renewal(reply)
            elif writer in worker.lingering and writer.check(reply) and for_good and writer.is_settled:
                worker.lingering.remove(writer)

    @move(4, lambda self: any(worker.ending for worker in self.workers), pick=PICK)
    async def end_claimed(self, *, pick: int) -> None:
        await self._end_claimed(self.worker(pick, lambda worker: worker.ending))

    async def _end_claimed(self, worker: Worker) -> None:
        if worker.ending is not None:
            assert worker.claim is not None
            outcome, worker.ending = worker.ending, None
            if not await end_claimed(self.client, self.scripts, self.stream_id, *worker.claim, outcome):
                self._begin(worker)

    @move(1, lambda self: any(worker.remembers or worker.ending for worker in self.workers), pick=PICK)
    async def crash(self, *, pick: int) -> None:
        self.worker(pick, lambda worker: worker.remembers or worker.ending).crash()

    # --- actions of others on the stream

    @move(3, lambda self: self.delayed, pick=(0, 1, 2))
    async def arrive(self, *, pick: int) -> None:
        call, holder = self.delayed.pop(pick % len(self.delayed))
        await self._set_clock()
        await self._send(call, holder)

    @move(0.3, lambda self: self.redis.active, heard=(True, False))
    async def cancel(self, *, heard: bool) -> None:
        told = await run_script(self.client, self.scripts.cancel(self.stream_id, "cancelled"))
        if told is Refused.HELD and heard:
            holder = (await self._look()).state[b"holder"].decode()
            for worker in self.workers:
                if worker.writer is not None and holder.startswith(f"{worker.name}."):
                    worker.writer.stop(StopReason.CANCELLED)

    @move(0.3, lambda self: self.redis.active)
    async def delete(self) -> None:
        self.buried = await run_script(self.client, self.scripts.delete(self.stream_id, "p"))
        self.deleted |= self.buried

    @move(0.5, lambda self: self.redis.active)
    async def everybody_leaves(self) -> None:
        """End all reader leases."""
        patch = "redis.call('HSET', KEYS[1], 'live_until', 0, 'polled_until', 0) redis.call('DEL', KEYS[2])"
        await self._patch(patch, self.keys[READERS])

    # --- faults of Redis

    @move(2)
    async def remember(self) -> None:
        """Redis as it is now, to fall back to."""
        names: list[str] = [name.decode() for name in await self.client.keys("hr:{*")]
        async with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.dump(name)
                pipe.pexpiretime(name)
            answers = await pipe.execute()
        self.snapshot = dict(zip(names, zip(answers[::2], answers[1::2], strict=True), strict=True))

    @move(2, lambda self: self.snapshot is not None)
    async def roll_back(self) -> None:
        assert self.snapshot is not None
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.flushall()
            for name, (content, at) in self.snapshot.items():
                pipe.restore(name, at, content, absttl=True)
            await pipe.execute()
        self._lost_something()

    @move(1, lambda self: self.remembered)
    async def empty(self) -> None:
        await self.client.flushall()
        self._lost_something()

    @move(0.2)
    async def forget_scripts(self) -> None:
        await self.client.script_flush()

    def _lost_something(self) -> None:
        self.age += 1
        self.claims_at_this_age = 0
        self.buried = False

    # --- gateways and viewers

    @move(8, pick=PICK, words=(("fetch",), ("deliver",), ("wake", "fetch"), ("wake", "fetch", "deliver")))
    async def read_tails(self, *, pick: int, words: tuple[str, ...]) -> None:
        await self.hubs[pick].read_on(*words)

    @move(4, pick=PICK)
    async def compare(self, *, pick: int) -> None:
        """Report leads and leases to Redis, which notifies the holder of room."""
        await self.hubs[pick].compare()
        for writer in self.remembered:
            writer.room()

    @move(10, lambda self: not all(v.ending for v in self.viewers), pick=PICK, hub=PICK, frames=(0, 1, 2, 9, 9, 9, 9))
    async def take(self, *, pick: int, hub: int, frames: int) -> None:
        """Take the next frames. If the connection breaks, some of them may have arrived."""
        waiting = [viewer for viewer in self.viewers if not viewer.ending]
        await self._look_on(waiting[pick % len(waiting)], hub, frames)

    async def _look_on(self, viewer: Viewer, hub: int, frames: int) -> None:
        if viewer.subscription is None:
            await self._connect(viewer, self.hubs[hub])
        if viewer.subscription is not None:
            await self._take(viewer, frames)

    async def _connect(self, viewer: Viewer, hub: SteppedHub) -> None:
        """Connect as ``GET /chat/stream/{id}`` does."""
        cursor = parse_cursor(viewer.last_id)
        page = await hub.read(self.stream_id, cursor)
        if isinstance(page, Gone):
            assert self.deleted
            viewer.ending = "deleted"
        elif isinstance(page, LogPage) and page.status in TERMINAL and cursor == (page.epoch, page.length):
            raise AssertionError("204 for a viewer that has not seen `done`")
        elif isinstance(page, LogPage):
            viewer.subscription = SteppedSubscription(hub, self.stream_id, cursor, page, Native(self.stream_id))
            viewer.chunks = viewer.subscription.chunks()

    async def _take(self, viewer: Viewer, most: int) -> None:
        if viewer.asking is None:
            assert viewer.chunks is not None
            viewer.asking = self.bench.loop.create_task(anext(viewer.chunks))
        await self._settle()
        if not viewer.asking.done():
            return
        chunk, viewer.asking = viewer.asking.result(), None
        frames = list(_FRAME.finditer(chunk))
        assert b"".join(frame[0] for frame in frames) == chunk
        for frame in frames[:most]:
            assert not viewer.ending, f"{frame[0]!r} after the ending"
            self._show(viewer, frame)
        if len(frames) > most:
            await viewer.drop()
        elif viewer.ending:
            assert viewer.chunks is not None
            assert await anext(viewer.chunks, b"the end") == b"the end"
            await viewer.drop()

    def _show(self, viewer: Viewer, frame: re.Match[bytes]) -> None:
        kind, data = frame[2], frame[3]
        if frame[1] is None:
            self._handle_synthetic(viewer, kind, data)
            return
        stored = kind + b" " + data
        event = events.decode(stored)
        if isinstance(event, Start) and event.reset:
            assert viewer.last_id is not None, "reset for a viewer that has nothing"
            viewer.held.clear()
            stored = events.encode(msgspec.structs.replace(event, reset=False))
        viewer.last_id = frame[1].decode()
        at = parse_event_id(viewer.last_id)
        viewer.held.append((at, stored))
        epoch = viewer.held[0][0].epoch
        assert [a for a, _ in viewer.held] == [EventId(epoch, i + 1) for i in range(len(viewer.held))], viewer.held
        check_one_attempt([event for _, event in viewer.held])
        assert self.shown.setdefault(at, stored) == stored, f"{at} was shown with another content"
        if isinstance(event, Done):
            viewer.ending = "done"

    def _handle_synthetic(self, viewer: Viewer, kind: bytes, data: bytes) -> None:
        raw = msgspec.json.decode(data)
        if kind == b"done":
            viewer.ending = raw["reason"]
            assert viewer.ending in {"deleted", "stream_lost"}
            if viewer.ending == "deleted":
                assert self.deleted
            else:
                assert not self.healers, "lost although a worker has all of it in memory"
        elif kind == b"error":
            assert raw["code"] == "stream_lost"
        elif kind == b"start":
            assert raw["reset"]
            assert viewer.last_id is not None, "reset for a viewer that has nothing"
            viewer.held.clear()
        else:
            assert kind == b"queued"

    @move(1, lambda self: any(viewer.subscription for viewer in self.viewers), pick=PICK)
    async def drop(self, *, pick: int) -> None:
        await self.viewers[pick].drop()

    @move(1)
    async def time_passes(self) -> None:
        """Half a second passes, in which every living worker reaches Redis."""
        for writer in self.remembered:
            await self._renew(writer, "answered")
            while writer in self.woken:
                await self._flush(writer, "answered")
        self.bench.loop.ahead_s += 0.5

    # --- without faults, every viewer gets an ending

    @move(2, ends=(False,))
    async def go_on(self, *, ends: bool) -> None:
        """A stretch without faults, so that walks get far."""
        for worker in self.workers:
            await self._work(worker, ends=ends)
        for i, hub in enumerate(self.hubs):
            await hub.read_on("wake", "fetch", "deliver")
            await self.compare(pick=i)
        for i, viewer in enumerate(self.viewers):
            if not viewer.ending:
                await self._look_on(viewer, i, 9)

    async def _work(self, worker: Worker, *, ends: bool) -> None:
        if worker.idle and self.redis.active and (ends or not any(other.writer for other in self.workers)):
            await self._claim(worker, "answered", well=ends)
        if worker.generates:
            await self._generate(worker, 2, mixed=True)
            if ends and worker.deltas == LONGEST_ANSWER:
                self._finish(worker, Outcome("stop"))
        await self._settle()
        if ends:
            await self._end_claimed(worker)
        for writer in worker.remembers:
            await self._flush(writer, "answered")
        await self._settle()

    async def come_to_rest(self) -> None:
        while self.delayed:
            await self.do("arrive", pick=0)
        for _ in range(60):
            await self.do("go_on", ends=True)
            await self.do("time_passes")
            if self.redis.missing and not self.healers:
                for viewer in self.viewers:
                    if viewer.subscription is None:
                        viewer.ending = viewer.ending or "not found"
            if all(worker.idle for worker in self.workers):
                if not self.redis.active and all(viewer.ending for viewer in self.viewers):
                    return
                await self._expire_lease()
        raise AssertionError(f"no rest: {self.redis} {self.viewers} {self.workers}")

    async def _close(self) -> None:
        for worker in self.workers:
            worker.crash()
        for viewer in self.viewers:
            await viewer.drop()
        for hub in self.hubs:
            await hub.close()


async def walk(bench: Bench, seed: int) -> tuple[Steps, Exception | None]:
    """Return the steps taken, and the error if there was one."""
    dice = random.Random(seed)
    steps: Steps = []
    one = Walk(bench)
    try:
        async with one.begun(*beginning(seed)):
            while len(steps) < STEPS and not (steps and one.is_over):
                able = {name: move for name, move in MOVES.items() if move.may(one)}
                (name,) = dice.choices(list(able), [move.weight for move in able.values()])
                steps.append((name, {key: dice.choice(values) for key, values in able[name].choices.items()}))
                await one.do(name, **steps[-1][1])
            await one.come_to_rest()
    except Exception as error:  # noqa: BLE001  every error is a finding
        return steps, error
    return steps, None


def beginning(seed: int) -> tuple[str, str]:
    return ("continue", "cancel")[seed % 2], ("restart", "restart", "fail")[seed % 3]


async def walk_again(bench: Bench, seed: int, steps: Steps) -> Exception | None:
    one = Walk(bench)
    try:
        async with one.begun(*beginning(seed)):
            for name, arguments in steps:
                if MOVES[name].may(one):
                    await one.do(name, **arguments)
            await one.come_to_rest()
    except Exception as error:  # noqa: BLE001
        return error
    return None


async def cut_down(bench: Bench, seed: int, steps: Steps, error: Exception) -> tuple[Steps, Exception]:
    """Without every step that is not needed to go wrong."""
    for at in reversed(range(len(steps))):
        fewer = steps[:at] + steps[at + 1 :]
        if (other := await walk_again(bench, seed, fewer)) is not None:
            steps, error = fewer, other
    return steps, error


def walk_all(bench: Bench, seeds: range) -> str:
    """Describe the first walk that went wrong; '' if all went well."""
    for number, seed in enumerate(seeds, 1):
        steps, error = bench.run(walk(bench, seed))
        if error is not None:
            steps, error = bench.run(cut_down(bench, seed, steps, error))
            taken = "".join(f"\n    {name} {arguments}" for name, arguments in steps)
            return f"walk {number}, seed {seed} {beginning(seed)}:{taken}\n{type(error).__name__}: {error}"
    return ""


@pytest.fixture(autouse=True)
def _small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RING", 2)


@pytest.mark.timeout(300 + SOAK)
def test_no_walk_breaks_the_rules(bench: Bench) -> None:
    first = time.time_ns() // 1_000_000 if SOAK else 0
    wrong = walk_all(bench, range(first, first + EXAMPLES))
    assert not wrong, wrong
    moves = {(before, after) for _, before, after in bench.observer.seen if before != after}
    table = {(before, after) for before, row in TRANSITIONS.items() for after in row.values()}
    assert moves == {(before, after) for before, after in table if before != after and before not in TERMINAL}


# --- the walks notice each check that is taken out of the scripts


@dataclass(frozen=True)
class Mutation:
    """``script``: the one it is made in, or all where it is in the part they share."""

    name: str
    old: str
    new: str = ""
    script: str = ""


# Not among them, see tests/scripts/: the checks of the tail's top, in `claim` and in `write`, which matter only if Redis
# lost the state and kept the tail; and the fast append's checks of the window and of the log's epoch, for which a walk
# would need two logs of the same length.
MISSING_CHECKS: Final = [
    Mutation(
        "an ended stream refuses",
        "if not active(s) then\n    return {'CLOSED',",
        "if false then\n    return {'CLOSED',",
    ),
    Mutation("a higher epoch supersedes", "current > epoch or "),
    Mutation("another holder supersedes", " or (current == epoch and s.holder ~= holder)"),
    Mutation("a lower epoch is behind", "if current < epoch then return reply('BEHIND', 0, s) end"),
    Mutation("a deleted stream refuses", "if deleted() then return {'CLOSED', 0, 'deleted', 0, 0} end"),
    Mutation("no gap in append", "if first_seq > n + 1 then return reply('GAP', n, s) end", script="append"),
    Mutation("no gap in finish", "if first_seq > n + 1 then return reply('GAP', n, s) end", script="finish"),
    Mutation(
        "logged events are skipped by append",
        "write(s, epoch, n, upto, 6",
        "write(s, epoch, first_seq - 1, upto, 6",
        "append",
    ),
    Mutation(
        "logged events are skipped by finish",
        "write(s, epoch, n, last,",
        "write(s, epoch, first_seq - 1, last,",
        "finish",
    ),
    Mutation(
        "the log is of one epoch",
        "tonumber(s.log_epoch) == epoch and redis.call('LLEN', LOG) or 0",
        "redis.call('LLEN', LOG)",
    ),
    Mutation("a new epoch empties the log", "redis.call('DEL', LOG)\n"),
    Mutation("the tail is capped", "if redis.call('XLEN', TAIL) > cap then", "if false then"),
    Mutation("fast append: by this holder", "s[1] == holder and ", script="append"),
    Mutation("fast append: where the log ends", " and n + 1 == tonumber(first_seq)", script="append"),
    Mutation(
        "fast append: within the cap", "and redis.call('XLEN', KEYS[3]) + count <= tonumber(cap)", script="append"
    ),
    Mutation(
        "no restore of an ended stream",
        "refusal[1] ~= 'BEHIND' then",
        "refusal[1] ~= 'BEHIND' and refusal[1] ~= 'CLOSED' then",
        "restore",
    ),
    Mutation(
        "no restore over a higher epoch",
        "refusal[1] ~= 'BEHIND' then",
        "refusal[1] ~= 'BEHIND' and refusal[1] ~= 'SUPERSEDED' then",
        "restore",
    ),
    Mutation(
        "no restore over the same epoch",
        "if not refusal then return reply('GAP', log_length(s, epoch), s) end",
        script="restore",
    ),
    Mutation("an epoch above the state's", "tonumber(s.epoch) + 1, ", script="claim"),
    Mutation("an epoch above the clock's", ", now - s.created)", ")", "claim"),
    Mutation("a held stream is not claimed", "if held(s) then", "if false then", "claim"),
    Mutation("an ended stream is not claimed", "if not active(s) then return {'CLOSED'} end", script="claim"),
    Mutation("the terminal state comes with the ending", "'status', status, ", "", "finish"),
    Mutation("the index forgets ended streams", "ipairs({INDEX, 'hr:queue'})", "ipairs({'hr:queue'})", "finish"),
    Mutation(
        "log and tail expire", "redis.call('PEXPIREAT', LOG, expires)\n    redis.call('PEXPIREAT', TAIL, expires)"
    ),
    Mutation("a restored stream expires", "keep_until(now + retention_ms, tonumber(tombstone_ms))", script="restore"),
    Mutation(
        "a tombstone stays",
        "redis.call('SET', TOMBSTONE, 'deleted ' .. s.principal, 'PX', tombstone_ms)",
        "redis.call('DEL', TOMBSTONE)",
        "delete",
    ),
]


@pytest.mark.parametrize("mutation", MISSING_CHECKS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_mutation_fits_the_scripts(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, mutation)


def mutate(monkeypatch: pytest.MonkeyPatch, mutation: Mutation) -> None:
    found = 0
    for script in vars(declarations).values():
        if isinstance(script, Script) and mutation.script in {"", script.name} and mutation.old in script.source:
            assert script.source.count(mutation.old) == 1
            source = script.source.replace(mutation.old, mutation.new)
            monkeypatch.setattr(script, "source", source)
            monkeypatch.setattr(script, "sha", hashlib.sha1(source.encode()).hexdigest())
            found += 1
    assert found, "the scripts have changed"


@pytest.mark.skipif(not MUTATIONS, reason="HEADRACE_MODEL_MUTATIONS=1 makes it")
@pytest.mark.timeout(300 + SOAK)
@pytest.mark.parametrize("mutation", MISSING_CHECKS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_walk_notices_that(bench: Bench, mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch, mutation)
    wrong = walk_all(bench, range(EXAMPLES))
    print(f"{mutation.name}: {wrong}")
    assert wrong


# --- findings of the walks


def test_a_first_page_may_be_old(bench: Bench) -> None:
    """Two viewers of a gateway are let in; before the second begins, all that will ever come has come."""

    async def steps() -> None:
        one = Walk(bench)
        async with one.begun():
            for viewer in one.viewers:
                await one._connect(viewer, one.hubs[0])
            await one.do("delete")
            await one.come_to_rest()

    bench.run(steps())


def test_an_epoch_without_start(bench: Bench) -> None:
    """Redis has lost an attempt that was shown, and its worker is gone too; then the stream ends without output."""

    async def steps() -> None:
        one = Walk(bench)
        async with one.begun():
            await one.do("remember")
            await one.do("go_on", ends=False)  # both viewers see the first tokens
            await one.do("roll_back")
            await one.do("crash", pick=0)
            await one.do("cancel", heard=False)
            await one.come_to_rest()

    bench.run(steps())


def test_an_end_lost_and_healed_between_two_comparisons(bench: Bench) -> None:
    """A comparison shows the hub an end; Redis loses that end before a slow viewer reads it; the worker writes it
    again before the next comparison, which finds all as it was."""

    async def steps() -> None:
        one = Walk(bench, forgives=False)
        async with one.begun():
            for viewer in (0, 0, 1):
                await one.do("take", pick=viewer, hub=0, frames=9)
            await one.do("go_on", ends=False)
            await one.do("compare", pick=0)
            await one.do("remember")
            await one.do("leave", pick=0, how="stop")
            await one.do("compare", pick=0)
            await one.do("take", pick=1, hub=0, frames=9)
            await one.do("flush", pick=0, fate="answered")
            await one.do("compare", pick=0)
            await one.do("roll_back")
            await one.come_to_rest()

    bench.run(steps())
