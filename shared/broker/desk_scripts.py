"""One typed function for each script of the desk, the slot with everything that is per request (docs/adr/0020)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.broker import declarations, desk_replies
from shared.broker.declarations import Call
from shared.broker.desk_replies import Admitted, Created, OtherLanes, Parked, Requeued, Taken, TargetFull
from shared.broker.keys import (
    DROPPING,
    QUEUE,
    TAKEN,
    TURNS,
    WAITING,
    WAITING_ACCOUNTS,
    account_keys,
    job_key,
    of_key,
    provider_limit_keys,
)
from shared.broker.queue import job_of
from shared.broker.replies import Refused
from shared.rate_limits import LIMIT_NAMES, TARGET_LIMIT_NAMES, UNLIMITED, Demand, Limits, TargetLimits
from shared.settings import Settings

#: Limits of a stream that must not be refused, but is counted.
_COUNTED: Final = Limits(concurrent_streams=1)


@dataclass(frozen=True, slots=True)
class Place:
    """The desk's part of a new stream. ``size``: its bytes. ``targets``: providers in order, separated by spaces.
    ``sources``: ids of streams that it was made from, separated by spaces."""

    stream_id: str
    demand: Demand
    size: int
    targets: str = ""
    sources: str = ""


class DeskScripts:
    """The scripts of the desk, with the settings they take filled in."""

    def __init__(self, settings: Settings) -> None:
        self._unended_ms = round(settings.unended_s * 1000)
        self._lease_ms = round(settings.lease_s * 1000)
        self._queue_depth = settings.queue_depth
        longest_s = settings.queue_timeout_s + settings.max_attempts * (settings.total_deadline_s + settings.lease_s)
        #: After which an account forgets a stream.
        self.longest_life_ms = round(longest_s * 1000)

    def admit(self, place: Place, *, is_final: bool, is_queue_slow: bool = False) -> Call[Admitted]:
        """Count and queue a stream that was begun. ``is_final``: the caller does not try again. ``is_queue_slow``:
        refuse as at the queue depth."""
        queue_depth = 0 if is_queue_slow else self._queue_depth
        return self._admit(place, queue_depth=queue_depth, final=int(is_final), force=0)

    def readmit(self, place: Place, *, is_limited: bool) -> Call[Admitted]:
        """Count and queue a stream that the desk does not have, whatever its account has already. ``is_limited``: the
        account has limits."""
        demand = Demand(place.demand.account, _COUNTED if is_limited else Limits(), place.demand.tokens)
        place = Place(place.stream_id, demand, place.size, place.targets, place.sources)
        return self._admit(place, queue_depth=0, final=1, force=1)

    def _admit(self, place: Place, *, queue_depth: int, final: int, force: int) -> Call[Admitted]:
        demand = place.demand
        return declarations.ADMIT.call(
            declarations.ADMIT.named_keys(
                of=of_key(place.stream_id),
                queue=QUEUE,
                job=job_key(place.stream_id),
                turns=TURNS,
                waiting=WAITING,
                waiting_accounts=WAITING_ACCOUNTS,
                dropping=DROPPING,
                **account_keys(demand.account),
            ),
            desk_replies.parse_admitted,
            stream_id=place.stream_id,
            account=demand.account,
            tokens=demand.tokens,
            bytes=place.size,
            retention_ms=self._unended_ms,
            longest_life_ms=self.longest_life_ms,
            **{name: getattr(demand.limits, name) or 0 for name in LIMIT_NAMES},
            queue_depth=queue_depth,
            queue_limit=2 * self._queue_depth,
            targets=place.targets,
            sources=place.sources,
            final=final,
            force=force,
            job=job_of(place.stream_id),
        )

    def requeue(self, stream_id: str) -> Call[Requeued]:
        """Put a stream's id before all others into the queue, unless it is queued."""
        return declarations.REQUEUE.call(
            declarations.REQUEUE.named_keys(of=of_key(stream_id), queue=QUEUE),
            desk_replies.parse_requeued,
            stream_id=stream_id,
            life_ms=self._unended_ms,
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
            desk_replies.parse_unparked,
            **{name: getattr(limits, name) for name in TARGET_LIMIT_NAMES},
            life_ms=self._unended_ms,
        )


def _lane_keys(lanes: Iterable[str]) -> list[str]:
    return [key for lane in lanes for key in provider_limit_keys(lane)]


def _names(lanes: str) -> list[str]:
    return [lane for lane in lanes.split("\n") if lane]


def _numbers(limits: TargetLimits) -> list[int]:
    return [getattr(limits, name) for name in TARGET_LIMIT_NAMES]


def is_refusal(admitted: Admitted) -> bool:
    return not isinstance(admitted, Created)
