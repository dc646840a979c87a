"""Steps and faults that may follow a state."""

from collections.abc import Iterator
from typing import Any, Literal

from tests.protocol_model.invariants import broken_invariant
from tests.protocol_model.scripts import append, restore
from tests.protocol_model.states import (
    ENDED,
    FAILURE,
    FINISHED,
    IDLE,
    LENGTH,
    LINGERS,
    OFF,
    ON,
    PLAIN,
    QUEUED,
    RESET_PENDING,
    RESET_START,
    RESTORES,
    RUNNING,
    RUNS,
    TOLD_404,
    TOLD_LOST,
    Budget,
    Entry,
    Logged,
    Reader,
    Redis,
    Reply,
    Request,
    Rules,
    State,
    Step,
    Violation,
    Worker,
    capped,
)


class Model:
    """Steps of a protocol variant."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def first(self) -> State:
        rules = self.rules
        redis = Redis(QUEUED, 0, False, 0, (), ())
        faults = (rules.empty, rules.rollback, rules.crash, rules.pause, rules.lost_reply, rules.delay)
        return State(
            redis,
            redis if rules.rollback else "none",
            (IDLE, IDLE),
            (Reader(OFF, 0, 0, (), False),) * rules.readers,
            None,
            Budget(*faults, grace=False),
            (),
            (),
            (),
        )

    def steps(self, now: State) -> Iterator[Step]:
        yield from self._redis_faults(now)
        yield from self._time_passes(now)
        if now.late is not None:
            yield self._late_request(now, now.late)
        for place, worker in enumerate(now.workers):
            if not worker.is_idle:
                yield from self._worker(now, place, worker)
            elif place == 0 or not now.workers[place - 1].is_idle:  # one of two idle ones is enough
                yield from self._claims(now, place)
        for place, reader in enumerate(now.readers):
            if place == 0 or now.readers[place - 1] != reader:
                yield from self._reader(now, place, reader)

    # --- faults of Redis, and time

    def _redis_faults(self, now: State) -> Iterator[Step]:
        grace = self.rules.lease_in_writes or self.rules.grace
        if now.budget.empty:
            replica: Literal["none"] | None = "none" if now.replica == "none" else None
            budget = now.budget._replace(empty=now.budget.empty - 1, grace=grace)
            yield _step(now, "REDIS IS EMPTIED", is_fault=True, redis=None, replica=replica, budget=budget)
        left = now.budget.rollback
        if left and now.replica not in ("none", now.redis):
            yield _step(now, "replica syncs", is_fault=True, replica=now.redis)
            yield _step(
                now,
                f"ROLLBACK to {_name(now.replica)}",
                is_fault=True,
                redis=now.replica,
                replica=now.replica if left > 1 else "none",
                budget=now.budget._replace(rollback=left - 1, grace=grace),
            )

    def _time_passes(self, now: State) -> Iterator[Step]:
        redis, strict = now.redis, self.rules.lease_in_writes
        unrenewed = [w for w in now.workers if w.leased and not (redis and redis.epoch == w.epoch)]
        if now.budget.grace and not unrenewed:
            yield _step(now, "grace ends", late=None, budget=now.budget._replace(grace=False))
        if redis is None or redis.status != RUNNING or not redis.leased:
            return
        expired = redis._replace(leased=False)
        holders = [w for w in now.workers if not w.is_idle and w.epoch == redis.epoch and (w.leased or not strict)]
        if not holders:
            late = None if strict and now.late and now.late.epoch == redis.epoch else now.late
            yield _step(now, f"lease of e{redis.epoch} expires", redis=expired, late=late)
        elif now.budget.pause and not strict:
            label = f"holder of e{redis.epoch} PAUSES, lease expires"
            yield _step(now, label, is_fault=True, redis=expired, budget=_less(now.budget, "pause"))

    def _late_request(self, now: State, request: Request) -> Step:
        reply, redis = (append if request.kind == "A" else restore)(self.rules, now.redis, request)
        label = f"late {_events(request)} ({request.kind}) arrives: {reply.code}"
        return _step(now, label, redis=redis, late=None, violation=self._wrong_write(now, redis, request))

    def _wrong_write(self, now: State, redis: Redis | None, request: Request) -> Violation | None:
        """Return the violation if the request changed Redis and must not have."""
        before = now.redis
        if redis == before:
            return None
        if before is not None and before.epoch > request.epoch:
            text = f"superseded writer (epoch {request.epoch} < state {before.epoch}) changed Redis"
            return Violation("I3", text)
        if before is not None and before.epoch == request.epoch and before.log:
            owner = before.log[-1].attempt
            if before.log[-1].epoch == request.epoch and owner != request.attempt:
                return Violation("I3", f"attempt u{request.attempt} wrote into u{owner}'s epoch {request.epoch}")
        if self.rules.forbids_older_writer and any(w.attempt > request.attempt for w in now.workers):
            return Violation("I3h", f"attempt u{request.attempt} wrote while a newer one lives")
        return None

    # --- workers without a stream

    def _claims(self, now: State, place: int) -> Iterator[Step]:
        redis = now.redis
        if now.budget.grace or not (self.rules.claims_missing if redis is None else _can_be_claimed(redis)):
            return
        if redis is not None and self._must_end(redis):
            if self.rules.foreign_ending == "same":
                yield self._end_in_place(now, redis)
            else:
                yield from self._end_under_fresh_epochs(now, redis)
            return
        if redis is not None and redis.log and self.rules.resumes != "never":
            yield from self._continues(now, redis, place)
            if self.rules.resumes == "always":
                return
        attempt = now.attempts + 1
        has_output = redis is not None and len(redis.log) >= 2
        kind = RESET_START if has_output and self.rules.client == "flag" else PLAIN
        for epoch in self._fresh_epochs(now):
            tail = (Entry(epoch, 1, attempt, kind),)
            attempts = (redis.attempts if redis else 0) + 1
            claimed = Redis(RUNNING, epoch, True, attempts, (Logged(epoch, attempt, kind),), tail)
            label = f"u{attempt} claims epoch {epoch}{' with reset' if kind else ''}"
            yield from self._claim(now, place, label, claimed, Worker(epoch, attempt, 1, 1, RUNS, True))

    def _continues(self, now: State, redis: Redis, place: int) -> Iterator[Step]:
        """Go on with the log under a fresh epoch, which begins with the first append (rule E13)."""
        attempt, k = now.attempts + 1, len(redis.log)
        for epoch in self._fresh_epochs(now):
            claimed = redis._replace(status=RUNNING, epoch=epoch, leased=True, attempts=redis.attempts + 1)
            label = f"u{attempt} claims epoch {epoch} and continues {redis.log[-1].epoch}-{k}"
            worker = Worker(epoch, attempt, k, k, RUNS, True, redis.log)
            yield from self._claim(now, place, label, claimed, worker)

    def _claim(self, now: State, place: int, label: str, claimed: Redis, worker: Worker) -> Iterator[Step]:
        epoch, base = worker.epoch, tuple(event.attempt for event in worker.base)
        taken = now._replace(bases=(*now.bases, base), used=self._used(now, epoch))
        repeated = self._repeated(now, epoch)
        yield _step(taken, label, redis=claimed, workers=_put(now.workers, place, worker), violation=repeated)
        if now.budget.lost_reply:
            budget = _less(now.budget, "lost_reply")
            yield _step(taken, f"{label} REPLY LOST", is_fault=True, redis=claimed, budget=budget, violation=repeated)

    def _must_end(self, redis: Redis) -> bool:
        no_more = redis.attempts >= self.rules.max_attempts
        forbidden = self.rules.fails_when_lost and len(redis.log) >= 2
        return redis.status == RUNNING and (no_more or forbidden)

    def _end_in_place(self, now: State, redis: Redis) -> Step:
        epoch, seq, attempt = redis.epoch, len(redis.log) + 1, redis.log[0].attempt
        log = (*redis.log, Logged(epoch, attempt, FAILURE))
        tail = capped((*redis.tail, Entry(epoch, seq, attempt, FAILURE)))
        ended = Redis(ENDED, epoch, False, redis.attempts, log, tail)
        return _step(now, f"sweep ends e{epoch} with a failure at {epoch}-{seq}", redis=ended)

    def _end_under_fresh_epochs(self, now: State, redis: Redis) -> Iterator[Step]:
        """End a stream under a fresh epoch, with a copy of its log (rule E4)."""
        attempt, n = now.attempts + 1, len(redis.log)
        for epoch in self._fresh_epochs(now):
            log = (Logged(epoch, attempt, PLAIN),) * n + (Logged(epoch, attempt, FAILURE),)
            copied = tuple(Entry(epoch, seq, attempt, event.kind) for seq, event in enumerate(log, 1))
            ended = Redis(ENDED, epoch, False, redis.attempts, log, capped(copied))
            taken = now._replace(bases=(*now.bases, ()), used=self._used(now, epoch))
            label = f"sweep claims e{epoch}, copies {n}, ends with a failure"
            yield _step(taken, label, redis=ended, violation=self._repeated(now, epoch))

    def _fresh_epochs(self, now: State) -> list[int]:
        """Epochs that a claim may take (rule E1); several if they are random."""
        highest = now.redis.epoch if now.redis else 0
        if now.redis and now.redis.tail:
            highest = max(highest, now.redis.tail[-1].epoch)
        if self.rules.epochs == "next":
            return [highest + 1]
        if self.rules.epochs == "rising":
            return [now.attempts + 1]
        top = self.rules.highest_random_epoch
        fresh = [epoch for epoch in range(highest + 1, top + 1) if epoch not in now.used]
        return fresh or [max(top, *now.used) + 1]

    def _used(self, now: State, epoch: int) -> tuple[int, ...]:
        return now.used if self.rules.epochs == "next" else (*now.used, epoch)

    def _repeated(self, now: State, epoch: int) -> Violation | None:
        return Violation("I6", f"epoch {epoch} given out twice") if epoch in now.used else None

    # --- workers with one

    def _worker(self, now: State, place: int, worker: Worker) -> Iterator[Step]:
        gone = _put(now.workers, place, IDLE)
        if now.budget.crash:
            label = f"u{worker.attempt} CRASHES"
            yield _step(now, label, is_fault=True, workers=gone, budget=_less(now.budget, "crash"))
        if self.rules.lease_in_writes:
            if not worker.leased:
                yield _step(now, f"u{worker.attempt} stops: its lease has lapsed", workers=gone)
                return
            if now.budget.pause:
                lapsed = _put(now.workers, place, worker._replace(leased=False))
                label = f"u{worker.attempt} PAUSES, its lease lapses"
                yield _step(now, label, is_fault=True, workers=lapsed, budget=_less(now.budget, "pause"))
        if worker.mode == RUNS:
            yield from self._appends(now, place, worker)
        elif worker.mode == RESTORES:
            yield from self._restores(now, place, worker)
        else:
            yield from self._checks(now, place, worker)

    def _appends(self, now: State, place: int, worker: Worker) -> Iterator[Step]:
        made, acked = worker.made, worker.acked
        ends = [made] if made > acked else [seq for seq in (made + 1, made + 2) if seq <= LENGTH]
        for last in ends:
            request = Request("A", worker.epoch, worker.attempt, acked + 1, last, worker.base)
            without_reply = worker._replace(made=max(made, last))
            reply, redis = append(self.rules, now.redis, request)
            after = self._after_append(without_reply, reply)
            yield from self._write(now, place, request, (reply, redis), after, without_reply)

    def _after_append(self, worker: Worker, reply: Reply) -> Worker:
        if (reply.code == "OK" and reply.n < LENGTH) or reply.code == "GAP":
            return worker._replace(acked=reply.n)
        if reply.code in ("MISSING", "BEHIND"):
            return worker._replace(mode=RESTORES)
        if reply.code == "XADD REFUSED":
            return worker
        is_own_ending = reply.code == "CLOSED" and reply.n >= LENGTH and worker.made >= LENGTH
        if self.rules.lingers and (reply.code == "OK" or is_own_ending):
            return worker._replace(acked=LENGTH, mode=LINGERS)
        return IDLE

    def _restores(self, now: State, place: int, worker: Worker) -> Iterator[Step]:
        request = Request("R", worker.epoch, worker.attempt, 1, worker.made, worker.base)
        reply, redis = restore(self.rules, now.redis, request)
        yield from self._write(now, place, request, (reply, redis), self._after_restore(worker, reply), worker)

    def _after_restore(self, worker: Worker, reply: Reply) -> Worker:
        if reply.code == "EXISTS":
            return worker._replace(mode=RUNS)
        if reply.code == "SUPERSEDED":
            return IDLE
        if reply.n >= LENGTH:
            return worker._replace(acked=reply.n, mode=LINGERS) if self.rules.lingers else IDLE
        return IDLE if reply.code == "CLOSED" else worker._replace(acked=reply.n, mode=RUNS)

    def _write(
        self,
        now: State,
        place: int,
        request: Request,
        answer: tuple[Reply, Redis | None],
        after: Worker,
        without_reply: Worker,
    ) -> Iterator[Step]:
        """Three fates of a request: it is answered, its reply is lost, or it arrives late."""
        reply, redis = answer
        violation = self._wrong_write(now, redis, request)
        label = f"u{request.attempt} {'appends' if request.kind == 'A' else 'restores'} {_events(request)}"
        workers = _put(now.workers, place, after)
        yield _step(now, f"{label}: {reply.code} {reply.n}", redis=redis, workers=workers, violation=violation)
        workers = _put(now.workers, place, without_reply)
        if now.budget.lost_reply and redis != now.redis:
            lost = now._replace(workers=workers, budget=_less(now.budget, "lost_reply"))
            yield _step(lost, f"{label} REPLY LOST", is_fault=True, redis=redis, violation=violation)
        if now.budget.delay and now.late is None:
            late = now._replace(late=request, workers=workers, budget=_less(now.budget, "delay"))
            yield _step(late, f"{label} is DELAYED", is_fault=True)

    def _checks(self, now: State, place: int, worker: Worker) -> Iterator[Step]:
        """Check whether Redis still has the ending (rule E6)."""
        redis, name = now.redis, f"u{worker.attempt}"
        is_there = redis is not None and redis.status == ENDED and redis.epoch == worker.epoch
        if is_there:
            has_replica = now.replica != "none" and self.rules.lag_is_bounded
            replica = redis if has_replica else now.replica
            forgotten = _put(now.workers, place, IDLE)
            yield _step(now, f"{name}: last check passes, forgets", workers=forgotten, replica=replica)
        request = Request("A", worker.epoch, worker.attempt, LENGTH + 1, LENGTH, worker.base)
        reply, _ = append(self.rules, redis, request)
        if reply.code in ("MISSING", "BEHIND"):
            after = worker._replace(mode=RESTORES)
        elif reply.code == "GAP":
            after = worker._replace(acked=reply.n, mode=RUNS)
        elif not is_there:
            after = IDLE
        else:
            return
        yield _step(now, f"{name} checks: {reply.code}", workers=_put(now.workers, place, after))

    # --- readers

    def _reader(self, now: State, place: int, reader: Reader) -> Iterator[Step]:
        if reader.phase in (FINISHED, TOLD_LOST, TOLD_404):
            return
        if reader.phase == OFF:
            yield from self._connects(now, place, reader)
            return
        if not self.rules.readers_stay:
            yield _turn(now, place, reader, OFF, "reader drops")
        if now.redis is None:
            if self.rules.reader == "fixed" and not _is_remembered(now):
                yield _turn(now, place, reader, TOLD_LOST, "gateway reports the stream as lost")
        elif now.redis.log:
            yield from self._reads(now, now.redis, place, reader)

    def _connects(self, now: State, place: int, reader: Reader) -> Iterator[Step]:
        if reader.finished:
            yield _turn(now, place, reader, FINISHED, "reader stops after its terminal event")
        label = f"reader connects with {reader.epoch}-{reader.seq}"
        if now.redis is None:
            if not _is_remembered(now):
                yield _turn(now, place, reader, TOLD_LOST, f"{label}: lost")
            elif self.rules.reader == "draft":
                yield _turn(now, place, reader, FINISHED if reader.finished else TOLD_404, f"{label}: 404")
        elif reader.epoch == 0:
            yield _turn(now, place, reader, ON, label)
        else:
            yield self._resumes(now, now.redis, place, reader)

    def _resumes(self, now: State, redis: Redis, place: int, reader: Reader) -> Step:
        """Reconnect with a cursor (rule R2)."""
        label = f"reader connects with {reader.epoch}-{reader.seq}"
        has_ended, length = redis.status == ENDED, len(redis.log)
        epoch = redis.log[-1].epoch if redis.log else 0
        if self._has(redis, reader):
            if not has_ended or reader.seq < length:
                return _turn(now, place, reader, ON, label)
            unseen = None if reader.finished else Violation("I4", "204 without having seen a terminal event")
            return _turn(now, place, reader, FINISHED, f"{label}: 204", unseen)
        if self.rules.reader == "draft":
            return _turn(now, place, reader, RESET_PENDING, f"{label}: reset")
        if epoch == reader.epoch and has_ended:
            too_short = Violation("I7", "ended stream is shorter than a cursor of its own epoch")
            return _step(now, label, violation=too_short)
        return _turn(now, place, reader, ON, f"{label} (held or reset)")

    def _reads(self, now: State, redis: Redis, place: int, reader: Reader) -> Iterator[Step]:
        epoch, seq, fixed = reader.epoch, reader.seq, self.rules.reader == "fixed"
        from_log = Entry(redis.log[0].epoch, 1, redis.log[0].attempt, redis.log[0].kind)
        log_epoch, has_cursor = redis.log[-1].epoch, self._has(redis, reader)
        if reader.phase == RESET_PENDING:
            yield self._deliver(now, place, reader, from_log, "log", clears=True)
            return
        next_entry = next((entry for entry in redis.tail if entry[:2] > (epoch, seq)), None)
        if next_entry is not None and next_entry.seq == (seq + 1 if next_entry.epoch == epoch else 1):
            clears = fixed and next_entry.epoch != epoch
            yield self._deliver(now, place, reader, next_entry, "tail", clears=clears)
        elif not has_cursor and log_epoch != epoch and (fixed or next_entry is not None):
            yield self._deliver(now, place, reader, from_log, "log", clears=True)
        if has_cursor and seq < len(redis.log):
            event = redis.log[seq]
            entry = Entry(event.epoch, seq + 1, event.attempt, event.kind)
            yield self._deliver(now, place, reader, entry, "log", clears=False)

    def _has(self, redis: Redis, reader: Reader) -> bool:
        """True if the log has the event that the reader's cursor names (rule R2)."""
        seq = reader.seq
        if not self.rules.ends_at_takeover and reader.epoch in {event.epoch for event in redis.log}:
            return seq <= len(redis.log)
        return seq == 0 or (seq <= len(redis.log) and redis.log[seq - 1].epoch == reader.epoch)

    def _deliver(self, now: State, place: int, reader: Reader, event: Entry, source: str, *, clears: bool) -> Step:
        if self.rules.reader == "draft":
            clears |= event.kind == RESET_START if self.rules.client == "flag" else event.epoch != reader.epoch
        violation = self._wrong_event(now, reader, event, clears=clears)
        is_last = event.kind == FAILURE or event.seq == LENGTH
        seen = now.seen
        # In other variants an id cannot have two contents.
        if self.rules.epochs == "next" or self.rules.foreign_ending == "same":
            shown = (event.epoch, event.seq, event.attempt, event.kind == FAILURE)
            if violation is None and any(other[:2] == shown[:2] and other != shown for other in seen):
                violation = Violation("I6", f"id {event.epoch}-{event.seq} shown with two contents")
            if shown not in seen:
                seen = tuple(sorted((*seen, shown)))
        kept = () if clears else reader.shown[: event.seq - 1]
        after = Reader(OFF if is_last else ON, event.epoch, event.seq, (*kept, event.attempt), is_last)
        label = f"reader gets {event.epoch}-{event.seq} (u{event.attempt}) from the {source}"
        label += f"{' END' if is_last else ''}{' CLEARED' if clears and reader.epoch else ''}"
        return _step(now, label, readers=_seat(now.readers, place, after), seen=seen, violation=violation)

    def _wrong_event(self, now: State, reader: Reader, event: Entry, *, clears: bool) -> Violation | None:
        shown, finished = ((), False) if clears else (reader.shown, reader.finished)
        if not clears and event.seq == 1 and event.epoch != reader.epoch and len(shown) <= 1 and not finished:
            shown = ()  # the client shows only a `start`, so there is nothing to mix
        if self.rules.forbids_reset and clears and reader.epoch:
            return Violation("P1", "reader is reset though the holder lives")
        if finished:
            return Violation("I2", f"event {event.epoch}-{event.seq} after the terminal one")
        after = (*shown, event.attempt)
        if event.seq != len(after) or after != now.answer(event.attempt, event.seq):
            has, gets = f"{shown}", f"u{event.attempt} {event.epoch}-{event.seq}"
            return Violation("I1", f"reader mixes: has {has}, gets {gets}")
        return None


# --- parts of steps


def _step(
    now: State, label: str, *, is_fault: bool = False, violation: Violation | None = None, **changes: Any
) -> Step:
    after = now._replace(**changes)
    if violation is None and (after.redis is not now.redis or after.seen is not now.seen):
        violation = broken_invariant(after)
    return Step(label, after, is_fault, violation)


def _turn(now: State, place: int, reader: Reader, phase: int, label: str, violation: Violation | None = None) -> Step:
    readers = _seat(now.readers, place, reader._replace(phase=phase))
    return _step(now, label, readers=readers, violation=violation)


def _put(workers: tuple[Worker, ...], place: int, worker: Worker) -> tuple[Worker, ...]:
    """Replace a worker. Sorted, because workers are interchangeable."""
    return tuple(sorted((*workers[:place], worker, *workers[place + 1 :])))


def _seat(readers: tuple[Reader, ...], place: int, reader: Reader) -> tuple[Reader, ...]:
    return tuple(sorted((*readers[:place], reader, *readers[place + 1 :])))


def _less(budget: Budget, fault: str) -> Budget:
    return budget._replace(**{fault: getattr(budget, fault) - 1})


def _can_be_claimed(redis: Redis) -> bool:
    return redis.status == QUEUED or (redis.status == RUNNING and not redis.leased)


def _is_remembered(now: State) -> bool:
    """True if a worker, or a late restore, may still bring the stream back."""
    return any(not worker.is_idle for worker in now.workers) or (now.late is not None and now.late.kind == "R")


def _name(redis: Redis | str | None) -> str:
    if not isinstance(redis, Redis):
        return "nothing"
    made_by = f" u{redis.log[0].attempt}" if redis.log else ""
    return f"{{{('queued', 'running', 'ended')[redis.status]} e{redis.epoch} log[{len(redis.log)}]{made_by}}}"


def _events(request: Request) -> str:
    return f"u{request.attempt} e{request.epoch} {request.first}..{request.last}"
