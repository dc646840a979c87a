"""A walk: its moves, and the checks after each."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from gateway.dialects.native import Native
from shared.broker.client import run_script
from shared.broker.creation import NewStream, create
from shared.broker.desk_replies import Parked, Taken
from shared.broker.ending import Outcome, end_claimed, holder_of
from shared.broker.log import read_stored_log
from shared.broker.removal import delete_stream, drop_answer
from shared.broker.replies import Claimed, Code, Gone, LogPage, Refused, WriteReply
from shared.errors import GenerationError
from shared.protocol.events import Usage
from shared.protocol.ids import parse_cursor
from shared.protocol.lifecycle import TERMINAL
from tests.scripts.stream import ROUTE
from tests.walks.actors import (
    _FRAME,
    Cursor,
    SteppedHub,
    SteppedSubscription,
    Viewer,
    Worker,
)
from tests.walks.audience import Audience
from tests.walks.bench import (
    DEMAND,
    DIGEST,
    FATE,
    GATEWAYS,
    LANES,
    LONGEST_ANSWER,
    LOST_AFTER_S,
    MOSTLY,
    PICK,
    READERS,
    TIGHT,
    Bench,
)
from tests.walks.desk import Renewed, tokens_of
from tests.walks.moves import MOVES, move
from workers.jobs.claims import take
from workers.jobs.stored_answers import end_of_log, readable_lineage
from workers.providers.base import ReasoningDelta, TextDelta
from workers.writing.phases import Ended, StopReason
from workers.writing.writer import StreamWriter


class Walk(Audience):
    """One stream, two workers, two gateways, two viewers."""

    def __init__(self, bench: Bench, *, forgives: bool = True) -> None:
        """Set up the walk. ``forgives``: leave out the defect that the last test of this module shows."""
        super().__init__(bench)
        self.forgives = forgives
        self.workers = [Worker("w0"), Worker("w1")]
        self.viewers = [Viewer(), Viewer()]
        self.hubs = [SteppedHub(bench, self.scripts, name, forgives=forgives) for name in GATEWAYS]
        self.woken: dict[StreamWriter, None] = {}
        self.uids = itertools.count(1)
        self.names = itertools.count(1)
        self.snapshot: dict[str, tuple[bytes, int]] | None = None

    async def do(self, name: str, **arguments: Any) -> None:
        """One move; then all that it set going until nothing moves."""
        await MOVES[name].do(self, **arguments)
        await self._settle()
        async for gateway, message in self.bench.delivered():
            self.hubs[gateway].put(message)
        await self._check_redis()
        await self._check_class()

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
                if worker.writer is not None and (settlement := worker.writer.settlement) is not None:
                    self.unsettled.append((settlement, worker.writer.place.lanes))
                if self.is_contended and worker.writer is not None and worker.job.result() is Ended.HANDED_OVER:
                    self.handed_over.append(worker.writer)
                worker.be_done()

    # --- the walk begins

    @contextlib.asynccontextmanager
    async def begun(
        self,
        on_disconnect: str = "continue",
        on_worker_lost: str = "restart",
        *,
        is_stored: bool = False,
        is_archived: bool = False,
        is_contended: bool = False,
        is_batch: bool = False,
    ) -> AsyncIterator[None]:
        """Create the stream. ``is_stored``: the provider stores its answers."""
        self.is_stored, self.is_archived = is_stored, is_archived
        self.is_contended, self.is_batch = is_contended, is_batch
        fields: dict[str, str | bytes | int] = {
            "principal": "p",
            "provider": LANES[0],
            "model": "m",
            "request": "{}",
            "prompt_characters": 0,
            "on_disconnect": on_disconnect,
            "grace_ms": 0,
            "on_worker_lost": on_worker_lost,
            "body_hash": "ff",
            "idempotency": DIGEST,
            "expected_tokens": DEMAND.tokens,
            **({"archive": "1"} if is_archived else {}),
            **self.fields_of_class,
        }
        await self.client.flushall()
        await create(self.client, self.scripts, NewStream(self.stream_id, fields, "ff", DIGEST, DEMAND))
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
        resumes=MOSTLY,
    )
    async def claim(
        self, *, pick: int, fate: str, lease_over: bool, well: bool, remembered: bool, resumes: bool
    ) -> None:
        """Claim a stream. ``remembered``: Redis as it was before, for a failover to come. ``resumes``: go on with the
        stored answer of the attempt before, if there is one."""
        if remembered:
            await self.remember()
        if lease_over:
            await self._expire_lease()
        await self._claim(self.worker(pick, lambda worker: worker.idle), fate, well=well, resumes=resumes)

    async def _claim(self, worker: Worker, fate: str, *, well: bool, resumes: bool = True) -> None:
        if well:
            await self._pulse()
        await self._set_clock()
        token = f"{worker.name}{ROUTE}.{next(self.names):x}"
        await self._leave_queue()
        taken = await take(self.client, self.scripts, self.stream_id, token)
        if isinstance(taken, Parked):
            return
        claimed = await self._faulty(self.scripts.claim(self.stream_id, token), None, fate)
        if not isinstance(claimed, Claimed):
            return
        if isinstance(taken, Taken):
            claimed = replace(claimed, fields=claimed.fields | {"lane": taken.lanes.encode()})
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
            if resumes:
                await self._resume(worker, claimed)

    def _begin(self, worker: Worker) -> None:
        assert worker.claim is not None
        worker.uid, worker.deltas = next(self.uids), 0
        worker.writer = self._writer(worker.uid, *worker.claim)

    async def _resume(self, worker: Worker, claimed: Claimed) -> None:
        """Go on with a stored answer as ``workers.jobs.resumption`` does, if Redis loses nothing meanwhile."""
        cursor = Cursor.of(claimed.fields)
        if cursor is None or not claimed.readable or cursor.epoch != int(claimed.fields["log_epoch"]):
            return
        log = await read_stored_log(self.client, self.scripts, self.stream_id)
        if log.cursor != end_of_log(claimed.fields, claimed.readable):
            return
        assert worker.claim is not None
        worker.uid, worker.deltas = cursor.uid, cursor.deltas
        worker.writer = self._writer(worker.uid, *worker.claim)
        lineage = readable_lineage(claimed.fields, claimed.readable)
        worker.writer.draft.resume(log.events, lineage, cursor.of_epoch(claimed.epoch))

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
        made.draft.set_model("fake", str(uid))
        made.draft.begin_call("fake", str(uid))
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
        if worker.claim[0].readable and not worker.writer.draft.has_output and outcome.finish_reason != "stop":
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
        """Generate events. ``mixed``: reasoning between the text, so that they make more events than one."""
        assert worker.writer is not None
        for _ in range(min(deltas, LONGEST_ANSWER - worker.deltas)):
            text = f"{worker.uid}.{worker.deltas} "
            kind = ReasoningDelta if mixed and worker.deltas % 2 else TextDelta
            worker.deltas += 1
            cursor = Cursor(worker.writer.holder.epoch, worker.uid, worker.deltas).text if self.is_stored else ""
            await worker.writer.push([kind(text)], cursor)

    @move(
        2,
        lambda self: any(w.generates for w in self.workers),
        pick=PICK,
        fate=FATE,
        provider=LANES[:2],
        is_counted=(True, False),
    )
    async def take_slot(self, *, pick: int, fate: str, provider: str, is_counted: bool) -> None:
        """Call a provider: take its slot instead of the one that the stream has."""
        writer = self.worker(pick, lambda worker: worker.generates).writer
        assert writer is not None
        lane = await self._slot(writer.holder, provider, LANES[2] if is_counted else "", writer.place.lanes, fate)
        if isinstance(lane, str):
            writer.place.lanes = lane

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

    @move(3, lambda self: self.remembered, pick=PICK, fate=FATE, for_good=(True, False), holds_late=PICK)
    async def renew(self, *, pick: int, fate: str, for_good: bool, holds_late: bool) -> None:
        writer = self.remembered[pick % len(self.remembered)]
        await self._renew(writer, fate, for_good=for_good, holds_late=holds_late)

    async def _renew(
        self, writer: StreamWriter, fate: str, *, for_good: bool = False, holds_late: bool = False
    ) -> None:
        """Renew as ``workers.writing.leases`` does. ``for_good``: an ended stream's events were kept for long
        enough. ``holds_late``: the second step comes with a later move."""
        is_lost = writer in self.unknown
        self.unknown.discard(writer)
        reply = await self._faulty(self.scripts.renew(writer.holder), writer.holder, fate)
        if isinstance(reply, WriteReply) and reply.code is Code.OK:
            self.renewed.append(Renewed(writer, reply, is_lost))
            if not holds_late:
                await self._hold(self.renewed.pop(), fate)
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
                if worker.writer is not None and holder.startswith(f"{worker.name}{ROUTE}."):
                    worker.writer.stop(StopReason.CANCELLED)

    @move(0.3, lambda self: not self.redis.missing, dies=(False, True))
    async def delete(self, *, dies: bool) -> None:
        """Delete the stream. ``dies``: after the first step."""
        if dies:
            self.buried = bool(await run_script(self.client, self.scripts.delete(self.stream_id)))
        else:
            self.buried = await delete_stream(self.client, self.scripts, self.stream_id)
        self.deleted |= self.buried

    @move(0.2, lambda self: self.redis.ended, dies=(False, True))
    async def drop_answer(self, *, dies: bool) -> None:
        """Drop the answer, as under memory pressure, if it may be dropped. ``dies``: before the desk is told."""
        tokens = tokens_of(self.redis)
        if dies:
            dropped = bool(await run_script(self.client, self.scripts.drop(self.stream_id)))
        else:
            dropped = bool(await drop_answer(self.client, self.scripts, self.stream_id))
        self.buried |= dropped
        if dropped:
            self.tokens_of_dropped = tokens
        self.dropped |= dropped

    @move(0.5, lambda self: self.redis.active)
    async def everybody_leaves(self) -> None:
        """End all reader leases."""
        patch = "redis.call('HSET', KEYS[1], 'live_until', 0, 'polled_until', 0) redis.call('DEL', KEYS[2])"
        await self._patch(patch, self.keys[READERS])

    # --- faults of Redis

    @move(2)
    async def remember(self) -> None:
        """Redis as it is now, to fall back to."""
        found = await self.client.keys("hr:{*")
        names: list[str] = [name.decode() for name in found]
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

    # --- gateways and viewers

    @move(8, pick=PICK, words=(("fetch",), ("deliver",), ("wake", "fetch"), ("wake", "fetch", "deliver")))
    async def read_tails(self, *, pick: int, words: tuple[str, ...]) -> None:
        await self.hubs[pick].read_on(*words)

    @move(8, lambda self: any(hub.has_mail for hub in self.hubs), pick=PICK, is_lost=(True, False, False, False))
    async def hear(self, *, pick: int, is_lost: bool) -> None:
        """A gateway gets the next message about grown tails, or loses it."""
        hubs = [hub for hub in self.hubs if hub.has_mail]
        hubs[pick % len(hubs)].hear_next(is_lost=is_lost)

    @move(4, pick=PICK)
    async def compare(self, *, pick: int) -> None:
        """Report leads and leases to Redis, which notifies the holder of room."""
        await self.hubs[pick].compare(self.stream_id)
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
            assert self.dropped if page.dropped else self.deleted
            viewer.ending = "dropped" if page.dropped else "deleted"
        elif isinstance(page, LogPage) and page.status in TERMINAL and cursor == page.end:
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

    @move(1, lambda self: any(viewer.subscription for viewer in self.viewers), pick=PICK)
    async def drop(self, *, pick: int) -> None:
        await self.viewers[pick].drop()

    @move(1)
    async def time_passes(self) -> None:
        """A quarter of the time passes after which a stream counts as lost, and every living worker reaches Redis."""
        for writer in self.remembered:
            await self._renew(writer, "answered")
            if writer in self.unknown:
                await self._renew(writer, "answered")
            while writer in self.woken:
                await self._flush(writer, "answered")
        self.bench.loop.ahead_s += LOST_AFTER_S / 4

    # --- without faults, every viewer gets an ending

    @move(2, ends=(False,))
    async def go_on(self, *, ends: bool) -> None:
        """A stretch without faults, so that walks get far."""
        for worker in self.workers:
            await self._work(worker, ends=ends)
        for i, hub in enumerate(self.hubs):
            while hub.has_mail:
                hub.hear_next()
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
        await self._end_another()
        while self.delayed:
            await self.do("arrive", pick=0)
        while self.renewed:
            await self.do("hold", pick=0, fate="answered")
        for _ in range(60):
            await self.do("go_on", ends=True)
            await self.do("time_passes")
            if self.redis.missing and not self.healers:
                for viewer in self.viewers:
                    if viewer.subscription is None:
                        viewer.ending = viewer.ending or "not found"
            if all(worker.idle for worker in self.workers):
                if not self.redis.active and all(viewer.ending for viewer in self.viewers):
                    await self._check_settled()
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
