"""The stream of a walk in Redis."""

from dataclasses import replace
from typing import Any, Final, NamedTuple, cast

from shared.broker import declarations
from shared.broker.client import Client, run_script, run_scripts
from shared.broker.declarations import Call
from shared.broker.desk_replies import OtherLanes, TargetFull
from shared.broker.keys import budget_key, of_key, provider_limit_keys, stream_keys
from shared.broker.replies import Claimed, Code, WriteReply
from shared.broker.scripts import Holder, StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol import events
from shared.protocol.chunks import decompress, length_of
from shared.protocol.ids import EventId, parse_event_id
from shared.rate_limits import TargetLimits
from tests.scripts.stream import ROUTES
from tests.walks.actors import Redis, check_one_attempt
from tests.walks.bench import (
    AGE_MS,
    CAP,
    DEMAND,
    DIGEST,
    INDEX,
    LANES,
    LOG,
    PRICE,
    PULSE,
    RESERVATIONS,
    RESERVED_NANOS,
    STATE,
    TAIL,
    TIGHT,
    TOMBSTONE,
    Bench,
    T,
)

#: Streams whose appends and renewals go together with those of the walk's stream.
BROKEN: Final = f"{DIGEST[:2]}{'b' * 32}"
MISSING: Final = f"{DIGEST[:2]}{'c' * 32}"
STORED, STREAMS, USED = (f"hr:{{desk}}:{kind}:{DEMAND.account}" for kind in ("stored", "streams", "used"))
STREAM_BYTES = 5120
_CONTENT = (b"request", b"metadata", b"shown", b"response", b"sources", b"error")


class DeskPart(NamedTuple):
    """The desk's part of the stream. ``stored``: bytes of the account's streams. ``lanes``: those in which the
    stream runs; ``held``: those that count it. ``budgets``: the counts of RESERVATIONS. ``was_lost``: the desk had
    lost the stream meanwhile."""

    stored: dict[bytes, bytes]
    is_known: bool
    has_slot: bool
    lanes: list[str]
    held: list[str]
    budgets: list[dict[bytes, bytes]]
    was_lost: bool


class Ground:
    """The stream of a walk in Redis: its invariants, calls to it, and the passage of time."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.scripts = StreamScripts(TIGHT, ROUTES)
        self.scripts.prices = {f"fake/{uid}": PRICE for uid in range(1, 100)}
        self.scripts.target_limits = {name: TargetLimits(concurrent_streams=1) for name in LANES[:2]}
        self.client: Client = bench.client
        self.stream_id = f"{DIGEST[:2]}{next(bench.numbers):032x}"
        self.keys = stream_keys(self.stream_id, DIGEST)
        self.delayed: list[tuple[Call[Any], Holder | None]] = []
        self.shown: dict[EventId, bytes] = {}
        self.epochs: list[int] = []
        self.age = 1
        self.claims_at_this_age = 0
        self.buried = False  # deleted or dropped, and Redis has lost nothing since
        self.redis = Redis({}, [], [], None)  # as it was after the last move

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
        in_chunks = [event for chunk in log for event in decompress(chunk)]
        packed = length_of(state[b"chunks"].decode()) if b"chunks" in state else 0
        assert not state or packed == len(in_chunks), "the chunks have another number of events"
        redis = Redis(state, in_chunks, entries, tombstone, next_look, lives, sum(map(len, log)))
        return replace(redis, log=in_chunks + [event for _, event in entries]) if redis.active else redis

    async def _check_redis(self) -> None:
        redis = self.redis = await self._look()
        desk = await self._look_at_desk()
        assert desk.has_slot == desk.is_known, "the slot of the account is wrong"
        self._check_budgets(desk)
        ids = [at for at, _ in redis.tail]
        assert len(ids) <= CAP, "the tail is longer than its cap"
        assert ids == sorted(set(ids)), "the tail's ids do not rise"
        assert redis.missing or not self.buried, "a deleted or dropped stream has come back"
        if redis.missing:
            assert not redis.log
            assert not redis.tail
            return
        check_one_attempt(redis.log, whole=redis.ended)
        assert redis.ended or not any(map(events.is_done, redis.log)), "done before the terminal state"
        of_log = {redis.id_of(i + 1): event for i, event in enumerate(redis.log)}
        newest = list(of_log.items())[len(of_log) - len(redis.tail) :]
        assert redis.tail == newest, "the tail does not have the newest events under their ids"
        assert not redis.ended or redis.tail, "the tail misses the last event"
        for at in of_log.keys() & self.shown.keys():
            assert of_log[at] == self.shown[at], f"{at} was shown with another content"
        for at in self.shown:
            assert at.epoch != redis.log_epoch or redis.id_of(at.seq) == at, f"{at} was shown, of another epoch"
        self._check_lives(redis)
        self._check_stored_bytes(redis, desk)
        assert sorted(desk.held) == sorted(desk.lanes), f"the stream runs in {desk.held} and not in {desk.lanes}"
        assert not (redis.settled and desk.held), "an ended stream holds a slot"

    async def _look_at_desk(self) -> DeskPart:
        """Read all that the desk has of the stream, in one exchange: it happens after each move."""
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.hgetall(STORED)
            pipe.hmget(of_key(self.stream_id), ["account", "lane", "again"])
            pipe.zscore(STREAMS, self.stream_id)
            for lane in LANES:
                pipe.zscore(provider_limit_keys(lane)[0], self.stream_id)
            for each in RESERVATIONS:
                pipe.hgetall(budget_key(each.account))
            stored, (account, lanes, again), slot, *rest = await pipe.execute()
        held, budgets = rest[: len(LANES)], rest[len(LANES) :]
        own = [lane for lane, score in zip(LANES, held, strict=True) if score is not None]
        return DeskPart(
            stored=stored,
            is_known=account is not None,
            has_slot=slot is not None,
            lanes=(lanes or b"").decode().split(),
            held=own,
            budgets=budgets,
            was_lost=again is not None,
        )

    def _check_stored_bytes(self, redis: Redis, desk: DeskPart) -> None:
        """The account's total is the sum of its streams, and an ended stream is counted to the byte."""
        counts = {name: int(n) for name, n in desk.stored.items()}
        assert counts.pop(b"total", 0) == sum(counts.values())
        counted = counts.get(self.stream_id.encode())
        if redis.settled and counted is not None:
            content = [redis.state.get(name, b"") for name in _CONTENT]
            assert counted == STREAM_BYTES + sum(map(len, content)) + redis.log_bytes

    def _check_budgets(self, desk: DeskPart) -> None:
        """Budgets hold what the stream reserved as long as the desk has it; not if the desk had lost it meanwhile."""
        is_held = desk.is_known and not desk.was_lost
        expected = {"tokens": DEMAND.tokens, "nanos": RESERVED_NANOS} if is_held else {"tokens": 0, "nanos": 0}
        for each, stored in zip(RESERVATIONS, desk.budgets, strict=True):
            for period, counts in _by_period(stored).items():
                reserved = {kind: counts.get(f"reserved_{kind}", 0) for kind in expected}
                assert reserved == expected, f"{each.account} {period}: {reserved} are reserved, not {expected}"

    async def _budget(self, account: str) -> dict[str, dict[str, int]]:
        """Return the counts of an account by period."""
        return _by_period(await self.client.hgetall(budget_key(account)))  # type: ignore[misc]

    async def _is_at_desk(self) -> bool:
        """Return True if the desk counts the stream."""
        return bool(await self.client.hexists(of_key(self.stream_id), "account"))  # type: ignore[misc]

    def _check_lives(self, redis: Redis) -> None:
        state, log, tail, readers, index, tombstone, _pulse, request, _answers, idempotency = redis.lives
        assert -1 not in redis.lives, f"a key without expiry: {redis.lives}"
        together = {log, request, readers, idempotency} | (set() if redis.ended else {tail})
        assert together <= {state, -2}, f"keys expire at different instants: {redis.lives}"
        assert tail <= state, f"the tail outlives the stream: {redis.lives}"
        assert tombstone > state
        assert (redis.next_look is None) == redis.done, "the index is wrong"
        assert redis.done or index >= state

    # --- calls

    async def _send(self, call: Call[T], holder: Holder | None) -> T:
        """Send a writer's call. A refused call changes nothing."""
        before = await self._look()
        reply = await self._send_among_others(call)
        if holder is not None and isinstance(reply, WriteReply):
            refusal = before.refusal(holder)
            if call.script.name == "restore":  # a restore is allowed only where other calls are refused
                healed = refusal in {Code.MISSING, Code.BEHIND}
                refusal = Code.OK if healed else refusal or Code.GAP
            if refusal is None:
                assert reply.code in {Code.OK, Code.FULL, Code.GAP, Code.WATCHED, Code.PACKED, Code.UNPACKED}
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

    async def _send_among_others(self, call: Call[T]) -> T:
        """Send a call; an append or a renewal together with those of a broken stream and of a missing one."""
        if call.script not in {declarations.APPEND, declarations.RENEW}:
            return await run_script(self.client, call)
        others = [Holder(stream_id, 1, "w.x", None) for stream_id in (BROKEN, MISSING)]
        await self.client.set(stream_keys(BROKEN)[STATE], "not a state", px=600_000)
        is_renewal = call.script is declarations.RENEW
        broken, missing = (
            self.scripts.renew(holder) if is_renewal else self.scripts.append(holder, 1, [b"a", b"b"])
            for holder in others
        )
        first, reply, last = await run_scripts(self.client, [broken, call, missing])
        assert isinstance(first, BrokerUnavailable), first
        assert isinstance(last, WriteReply), last
        assert last.code is Code.MISSING, last
        if isinstance(reply, BrokerUnavailable):
            raise reply
        return cast("T", reply)

    async def _slot(
        self, holder: Holder, provider: str, counted: str, held: str, fate: str
    ) -> TargetFull | OtherLanes | str | BrokerUnavailable | None:
        """Take a slot of a provider, as a worker that knows of the lanes ``held``."""
        call = self.scripts.take_slot(holder, provider, counted, held=held)
        lane = await self._faulty(call, holder, fate)
        if isinstance(lane, OtherLanes):
            call = self.scripts.take_slot(holder, provider, counted, held=lane.lanes)
            return await self._faulty(call, holder, fate)
        return lane

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
        if await self.client.exists(of_key(self.stream_id)):
            await self.client.hset(of_key(self.stream_id), "until", "0")  # type: ignore[misc]


def _by_period(stored: dict[bytes, bytes]) -> dict[str, dict[str, int]]:
    """Return the counts of a budget by period."""
    found: dict[str, dict[str, int]] = {}
    for name, n in stored.items():
        period, _, what = name.decode().partition(":")
        found.setdefault(period, {})[what] = int(n)
    return found
