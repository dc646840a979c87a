"""One typed function for each script of the desk, the slot with everything that is per request (docs/adr/0020)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from shared.broker import declarations, desk_replies
from shared.broker.declarations import Call
from shared.broker.desk_replies import (
    Admitted,
    Created,
    Held,
    OtherLanes,
    Parked,
    Requeued,
    Settled,
    Taken,
    TargetFull,
)
from shared.broker.desk_requests import MAKES_ROOM, Holding, Kind, Place, Settlement
from shared.broker.keys import (
    ABOVE_LIMIT,
    BATCH_TURNS,
    DROPPING,
    ENDED,
    FAILED,
    QUEUE,
    TAKEN,
    TURNS,
    WAITING,
    WAITING_ACCOUNTS,
    account_keys,
    budget_key,
    endings_key,
    job_key,
    of_key,
    provider_limit_keys,
    removed_key,
    usage_key,
)
from shared.broker.queue import job_of
from shared.broker.replies import Refused
from shared.broker.usage import rows_of
from shared.rate_limits import LIMIT_NAMES, TARGET_LIMIT_NAMES, UNLIMITED, Limits, TargetLimits
from shared.settings import Settings

#: Limits of a stream that must not be refused, but is counted.
_COUNTED: Final = Limits(concurrent_streams=1)


class DeskScripts:
    """The scripts of the desk, with the settings they take filled in."""

    def __init__(self, settings: Settings) -> None:
        self._unended_ms = round(settings.unended_s * 1000)
        self._lease_ms = round(settings.lease_s * 1000)
        self._queue_depth = settings.queue_depth
        self._retention_ms = round(settings.retention_s * 1000)
        self._tombstone_ms = round(settings.tombstone_s * 1000)
        self._usage_ms = settings.usage_days * 86_400_000
        longest_s = settings.queue_timeout_s + settings.max_attempts * (settings.total_deadline_s + settings.lease_s)
        self.longest_life_ms = round(longest_s * 1000)  # an account then forgets the stream

    def admit(
        self, place: Place, *, final: Collection[str] = MAKES_ROOM, is_queue_slow: bool = False
    ) -> Call[Admitted]:
        """Count and queue a stream that was begun. ``final``: those of :data:`MAKES_ROOM` for which the caller makes
        no room any more. ``is_queue_slow``: refuse as at the queue depth."""
        queue_depth = 0 if is_queue_slow else self._depth_for(place)
        return self._admit(place, queue_depth=queue_depth, final=" ".join(sorted(final)), force=0)

    def readmit(self, place: Place, *, is_limited: bool) -> Call[Admitted]:
        """Count and queue a stream that the desk does not have, whatever its account has already. ``is_limited``: the
        account has limits."""
        place = replace(place, demand=replace(place.demand, limits=_COUNTED if is_limited else Limits()))
        return self._admit(place, queue_depth=0, final="", force=1)

    def _admit(self, place: Place, *, queue_depth: int, final: str, force: int) -> Call[Admitted]:
        demand = place.demand
        own = declarations.ADMIT.named_keys(
            of=of_key(place.stream_id),
            queue=QUEUE,
            job=job_key(place.stream_id),
            turns=TURNS,
            batch_turns=BATCH_TURNS,
            waiting=WAITING,
            waiting_accounts=WAITING_ACCOUNTS,
            dropping=DROPPING,
            **account_keys(demand.account),
        )
        return declarations.ADMIT.call(
            [*own, *(budget_key(reservation.account) for reservation in demand.reservations)],
            desk_replies.parse_admitted,
            stream_id=place.stream_id,
            account=demand.account,
            tokens=demand.tokens,
            bytes=place.size,
            retention_ms=self._unended_ms,
            longest_life_ms=self.longest_life_ms,
            **{name: getattr(demand.limits, name) or 0 for name in LIMIT_NAMES},
            queue_depth=queue_depth,
            queue_limit=self._depth_for(place) if place.is_batch else 2 * self._queue_depth,
            targets=place.targets,
            sources=place.sources,
            final=final,
            force=force,
            job=job_of(place.stream_id),
            slot=int(bool(demand.reservations)),
            batch=int(place.is_batch),
            budgets=[reservation.argument for reservation in demand.reservations],
        )

    def _depth_for(self, place: Place) -> int:
        """Return the most streams that may wait. Batch streams leave half of the queue to interactive ones."""
        return max(1, self._queue_depth // 2) if place.is_batch else self._queue_depth

    def requeue(self, stream_id: str) -> Call[Requeued]:
        """Put a stream's id before all others of its class into the queue, unless it is queued."""
        return declarations.REQUEUE.call(
            declarations.REQUEUE.named_keys(of=of_key(stream_id), queue=QUEUE, job=job_key(stream_id)),
            desk_replies.parse_requeued,
            stream_id=stream_id,
            life_ms=self._unended_ms,
            job=job_of(stream_id),
        )

    def settle(self, settlement: Settlement, held: str = "") -> Call[Settled | OtherLanes]:
        """Forget a stream that has ended or is gone. ``held``: its lanes, one a line."""
        owed, account, lanes = settlement.owed, settlement.account, _names(held)
        rows = rows_of(settlement.ledger)
        days = sorted({row.day for row in rows})
        usage_keys = [usage_key(day, of) for day in days for of in (None, account)]
        budgets = [word.partition(":")[0] for word in settlement.budgets.split()]
        own = declarations.SETTLE.named_keys(
            of=of_key(settlement.stream_id),
            job=job_key(settlement.stream_id),
            queue=QUEUE,
            waiting=WAITING,
            waiting_accounts=WAITING_ACCOUNTS,
            **account_keys(account),
            removed=removed_key(account),
            ended=ENDED,
            failed=FAILED,
            minute=endings_key(owed.ended // 60_000 if owed else 0),
        )
        return declarations.SETTLE.call(
            [*own, *usage_keys, *_lane_keys(lanes), *map(budget_key, budgets)],
            desk_replies.parse_settled,
            stream_id=settlement.stream_id,
            account=account,
            kind=Kind.PENDING if settlement.has_archive else settlement.kind,
            status=owed.status if owed else "",
            reason=owed.reason if owed else "",
            tokens=_number_or_empty(settlement.tokens),
            bytes=owed.size if owed else 0,
            expires=owed.ended + self._retention_ms if owed else 0,
            digest=settlement.digest,
            tombstone_ms=self._retention_ms + self._tombstone_ms,
            retention_ms=self._retention_ms,
            cost=settlement.cost,
            usage_ms=self._usage_ms,
            usage_days=len(days),
            usage_items=3 * len(rows),
            lane_count=len(lanes),
            charged_tokens=_number_or_empty(settlement.charged_tokens),
            usage=[item for row in rows for item in (days.index(row.day) + 1, row.field, row.counts)],
            lanes=lanes,
            budgets=budgets,
        )

    def hold(self, holding: Holding) -> Call[Held | OtherLanes]:
        """Extend a stream's place and slots, and count its bytes. They end before the stream's lease, so that its
        next worker finds no other's."""
        place, demand, lanes = holding.place, holding.place.demand, _names(holding.lanes)
        own = declarations.HOLD.named_keys(
            of=of_key(place.stream_id),
            above_limit=ABOVE_LIMIT,
            waiting=WAITING,
            waiting_accounts=WAITING_ACCOUNTS,
            **account_keys(demand.account),
        )
        again = (2 if demand.limits.has_rates else 1) if holding.is_lost else 0
        return declarations.HOLD.call(
            [*own, *_lane_keys(lanes)],
            desk_replies.parse_held,
            stream_id=place.stream_id,
            holder=holding.token,
            lease_ms=self._lease_ms * 4 // 5,
            account=demand.account,
            bytes=place.size,
            expires=holding.expires,
            stored_limit=demand.limits.stored_bytes or 0,
            again=again,
            life_ms=self.longest_life_ms + self._unended_ms,
            tokens=demand.tokens,
            targets=place.targets,
            made_from=place.sources,
            budgets=demand.budgets if again else "",
            batch=int(place.is_batch),
            lane_items=len(lanes),
            lanes=lanes,
        )

    def may_drop(self, stream_id: str, account: str) -> Call[bool]:
        """Ask whether the answer of a stream may be dropped. If so, no stream may be made from it for a minute."""
        keys = account_keys(account)
        return declarations.MAY_DROP.call(
            declarations.MAY_DROP.named_keys(
                of=of_key(stream_id), stored=keys["stored"], sources=keys["sources"], dropping=DROPPING
            ),
            bool,
            stream_id=stream_id,
        )

    def take(
        self, stream_id: str, token: str, limits: Mapping[str, TargetLimits], held: str
    ) -> Call[Taken | Parked | OtherLanes | Refused]:
        """Take a stream's place for a worker; see :meth:`StreamScripts.take`. ``limits``: of all providers."""
        limits = {**dict.fromkeys(_names(held), UNLIMITED), **limits}
        own = declarations.TAKE.named_keys(
            of=of_key(stream_id), waiting=WAITING, waiting_accounts=WAITING_ACCOUNTS, taken=TAKEN
        )
        return declarations.TAKE.call(
            [*own, *_lane_keys(limits)],
            desk_replies.parse_taken,
            stream_id=stream_id,
            holder=token,
            lease_ms=self._lease_ms,
            limits=[item for name, each in limits.items() for item in (name, *_numbers(each))],
        )

    def leave(self, stream_id: str, token: str, held: str, *, requeue: bool = False) -> Call[bool | OtherLanes]:
        """Free a stream's place and its lanes ``held``, one a line. ``requeue``: another worker shall take it."""
        lanes = _names(held)
        return declarations.LEAVE.call(
            [*declarations.LEAVE.named_keys(of=of_key(stream_id), queue=QUEUE), *_lane_keys(lanes)],
            desk_replies.parse_left,
            stream_id=stream_id,
            holder=token,
            requeue=int(requeue),
            life_ms=self._unended_ms,
            lanes=lanes,
        )

    def take_slot(
        self, stream_id: str, token: str, provider: str, target: str, limits: TargetLimits, held: str
    ) -> Call[TargetFull | OtherLanes | str | None]:
        """Take a slot of a provider; see :meth:`StreamScripts.take_slot`."""
        lanes = [*dict.fromkeys((provider, *([target] if target else []), *_names(held)))]
        return declarations.TAKE_SLOT.call(
            [of_key(stream_id), *_lane_keys(lanes)],
            desk_replies.parse_slot,
            stream_id=stream_id,
            holder=token,
            lease_ms=self._lease_ms,
            provider=provider,
            target=target,
            **{name: getattr(limits, name) for name in TARGET_LIMIT_NAMES},
            lanes=lanes,
        )

    def unpark(self, provider: str, limits: TargetLimits) -> Call[Sequence[str]]:
        """Put parked streams for which their provider has room back into the queue. The reply names them."""
        running, parked, tokens, used = provider_limit_keys(provider)
        return declarations.UNPARK.call(
            declarations.UNPARK.named_keys(running=running, parked=parked, tokens=tokens, used=used, queue=QUEUE),
            desk_replies.parse_ids,
            **{name: getattr(limits, name) for name in TARGET_LIMIT_NAMES},
            life_ms=self._unended_ms,
        )

    def take_due(self, queue: str, most: int, lease_ms: int) -> Call[Sequence[str]]:
        """Take streams that are due from a queue (``due_queues.py``), the longest due first. Others take them after
        ``lease_ms``, unless the caller puts them off or removes them. The reply has their ids."""
        return declarations.TAKE_DUE.call(
            declarations.TAKE_DUE.named_keys(queue=queue),
            desk_replies.parse_ids,
            most_ids=most,
            lease_ms=lease_ms,
        )


def _lane_keys(lanes: Iterable[str]) -> list[str]:
    return [key for lane in lanes for key in provider_limit_keys(lane)]


def _names(lanes: str) -> list[str]:
    return [lane for lane in lanes.split("\n") if lane]


def _number_or_empty(number: int | None) -> int | str:
    return "" if number is None else number


def _numbers(limits: TargetLimits) -> list[int]:
    return [getattr(limits, name) for name in TARGET_LIMIT_NAMES]


def is_refusal(admitted: Admitted) -> bool:
    return not isinstance(admitted, Created)
