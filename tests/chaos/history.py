"""What happened to the system, when, and what that excuses. All times are ``time.monotonic()``."""

import bisect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

#: Our clock is not that of the processes.
_SLACK_S = 0.5
#: A worker heals a broker that forgot within this, if nothing happens to either: a socket timeout of 5 s, a lease.
_HEALED_S = 8.0


@dataclass(slots=True)
class Span:
    begin: float
    end: float = inf

    def touches(self, since: float, until: float) -> bool:
        return self.begin <= until and since <= self.end + _SLACK_S


@dataclass(slots=True)
class ProviderCall:
    """``worker``: who made it, from 0. ``end``: when its connection was done with, either way."""

    number: int
    stream: int
    worker: int
    begin: float
    end: float = inf


@dataclass(slots=True)
class History:
    #: Worker → when it could not hold its leases: killed, stopped or cut off for longer than one.
    worker_out: dict[int, list[Span]] = field(default_factory=dict)
    #: Worker → when its way to the provider, or its own clockwork, was in trouble.
    provider_trouble: dict[int, list[Span]] = field(default_factory=dict)
    #: When the broker was away, or did not take what it was told, in order.
    broker_trouble: list[Span] = field(default_factory=list)
    #: When it lost data it had acknowledged.
    losses: list[float] = field(default_factory=list)
    #: Stream → its calls, in order.
    calls: dict[int, list[ProviderCall]] = field(default_factory=dict)
    #: When our own process, which carries all connections, stood still too long to blame anybody.
    lags: list[Span] = field(default_factory=list)

    @contextmanager
    def worker_is_out(self, worker: int) -> Iterator[None]:
        with _open_span(self.worker_out.setdefault(worker, [])), self.provider_in_trouble(worker):
            yield

    def worker_died(self, worker: int) -> None:
        """By itself, just now."""
        now = time.monotonic()
        for spans in (self.worker_out, self.provider_trouble):
            spans.setdefault(worker, []).append(Span(now - _SLACK_S, now))

    @contextmanager
    def provider_in_trouble(self, worker: int) -> Iterator[None]:
        with _open_span(self.provider_trouble.setdefault(worker, [])):
            yield

    @contextmanager
    def broker_in_trouble(self) -> Iterator[None]:
        with _open_span(self.broker_trouble):
            yield

    def lost(self) -> None:
        self.losses.append(time.monotonic())

    # --- what the oracle asks

    def is_excused(self, call: ProviderCall, until: float) -> bool:
        """Whether the stream may have left this call's worker before ``until``: the worker was out meanwhile, or the
        broker lost data after the call had ended."""
        spans = [*self.worker_out.get(call.worker, ()), *self.lags]
        if any(span.touches(call.begin, until) for span in spans):
            return True
        return any(call.end <= loss for loss in self.losses_between(call.begin, until))

    def provider_was_in_trouble(self, call: ProviderCall) -> bool:
        spans = [*self.provider_trouble.get(call.worker, ()), *self.lags]
        return any(span.touches(call.begin, call.end) for span in spans)

    def a_call_may_have_failed_unseen(self, since: float, until: float) -> bool:
        """The provider never heard of it."""
        return any(span.touches(since, until) for spans in self.provider_trouble.values() for span in spans)

    def may_be_lost(self, stream: int, since: float, until: float) -> bool:
        """Whether the broker lost the stream while no healthy worker held it."""
        return any(not self._held_healthily(stream, loss) for loss in self.losses_between(since, until))

    def losses_between(self, since: float, until: float) -> list[float]:
        return self.losses[bisect.bisect_left(self.losses, since) : bisect.bisect_right(self.losses, until)]

    def open_calls(self, worker: int | None = None) -> int:
        """Calls that are under way, of one worker or of all."""
        return sum(
            call.end == inf and worker in (None, call.worker) for calls in self.calls.values() for call in calls[-2:]
        )

    def _held_healthily(self, stream: int, at: float) -> bool:
        healed = at + _HEALED_S
        for span in self.broker_trouble:
            if span.touches(at, healed):
                healed = max(healed, span.end + _HEALED_S)
        return any(
            call.begin <= at <= call.end and not self.is_excused(call, healed) for call in self.calls.get(stream, ())
        )


@contextmanager
def _open_span(spans: list[Span]) -> Iterator[None]:
    span = Span(time.monotonic())
    spans.append(span)
    try:
        yield
    finally:
        span.end = time.monotonic()
