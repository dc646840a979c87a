"""Faults of the system with their times, and the deviations that they excuse. Times are ``time.monotonic()``."""

import bisect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

#: The clocks of the processes differ from ours.
_SLACK_S = 0.5
#: An undisturbed worker restores a stream that Redis lost within this time: a socket timeout of 5 s, a lease.
_HEALED_S = 8.0


@dataclass(slots=True)
class Span:
    begin: float
    end: float = inf

    def touches(self, since: float, until: float) -> bool:
        return self.begin <= until and since <= self.end + _SLACK_S


@dataclass(slots=True)
class ProviderCall:
    """One call of the provider. ``worker``: number of the worker that made it, from 0. ``end``: time at which its
    connection was closed."""

    number: int
    stream: int
    worker: int
    begin: float
    end: float = inf


@dataclass(slots=True)
class History:
    #: Worker → times without its leases: killed, stopped or cut off for longer than one.
    worker_out: dict[int, list[Span]] = field(default_factory=dict)
    #: Worker → times in which its connections to the provider, or the process itself, were disturbed.
    provider_disturbances: dict[int, list[Span]] = field(default_factory=dict)
    #: Outages of Redis, in order; also times in which it refused writes.
    broker_outages: list[Span] = field(default_factory=list)
    #: Times at which Redis lost acknowledged data.
    losses: list[float] = field(default_factory=list)
    #: Stream → its calls, in order.
    calls: dict[int, list[ProviderCall]] = field(default_factory=dict)
    #: Stream → reads of its stored answer by workers that went on with it, in order.
    reads: dict[int, list[ProviderCall]] = field(default_factory=dict)
    #: Stalls of the test process, which carries all connections; nothing can be blamed on the system then.
    lags: list[Span] = field(default_factory=list)

    @contextmanager
    def worker_is_out(self, worker: int) -> Iterator[None]:
        with _open_span(self.worker_out.setdefault(worker, [])), self.provider_disturbed(worker):
            yield

    def worker_died(self, worker: int) -> None:
        """Note that a worker has just exited by itself."""
        now = time.monotonic()
        for spans in (self.worker_out, self.provider_disturbances):
            spans.setdefault(worker, []).append(Span(now - _SLACK_S, now))

    @contextmanager
    def provider_disturbed(self, worker: int) -> Iterator[None]:
        with _open_span(self.provider_disturbances.setdefault(worker, [])):
            yield

    @contextmanager
    def broker_outage(self) -> Iterator[None]:
        with _open_span(self.broker_outages):
            yield

    def lost(self) -> None:
        self.losses.append(time.monotonic())

    # --- queries of the oracle

    def connections(self, stream: int) -> list[ProviderCall]:
        """Return all connections to the provider for a stream."""
        return [*self.calls.get(stream, ()), *self.reads.get(stream, ())]

    def is_excused(self, call: ProviderCall, until: float) -> bool:
        """Return True if the stream may have left this call's worker before ``until``: the worker was out, or the
        broker lost data after the call had ended."""
        spans = [*self.worker_out.get(call.worker, ()), *self.lags]
        if any(span.touches(call.begin, until) for span in spans):
            return True
        return any(call.end <= loss for loss in self.losses_between(call.begin, until))

    def was_out(self, worker: int, since: float, until: float) -> bool:
        return any(span.touches(since, until) for span in self.worker_out.get(worker, ()))

    def provider_was_disturbed(self, call: ProviderCall) -> bool:
        spans = [*self.provider_disturbances.get(call.worker, ()), *self.lags]
        return any(span.touches(call.begin, call.end) for span in spans)

    def a_call_may_have_failed_unseen(self, since: float, until: float) -> bool:
        """Return True if a call may have failed before it reached the provider."""
        return any(span.touches(since, until) for spans in self.provider_disturbances.values() for span in spans)

    def may_be_lost(self, stream: int, since: float, until: float) -> bool:
        """Return True if Redis lost the stream while no healthy worker held it."""
        return any(not self._held_healthily(stream, loss) for loss in self.losses_between(since, until))

    def losses_between(self, since: float, until: float) -> list[float]:
        return self.losses[bisect.bisect_left(self.losses, since) : bisect.bisect_right(self.losses, until)]

    def open_calls(self, worker: int | None = None) -> int:
        """Number of open calls, of one worker or of all."""
        return sum(
            call.end == inf and worker in (None, call.worker)
            for of_streams in (self.calls, self.reads)
            for calls in of_streams.values()
            for call in calls[-2:]
        )

    def _held_healthily(self, stream: int, at: float) -> bool:
        healed = at + _HEALED_S
        for span in self.broker_outages:
            if span.touches(at, healed):
                healed = max(healed, span.end + _HEALED_S)
        return any(
            call.begin <= at <= call.end and not self.is_excused(call, healed) for call in self.connections(stream)
        )


@contextmanager
def _open_span(spans: list[Span]) -> Iterator[None]:
    span = Span(time.monotonic())
    spans.append(span)
    try:
        yield
    finally:
        span.end = time.monotonic()
