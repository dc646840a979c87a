"""Model of the processes that a number of streams needs: constants times rates, plus the cost of many nodes.

Every process has one core, all streams are alike, nothing fails. One part is not a multiplication: the cost for each
master that a process talks to at a time depends on the number of both. Slots are dealt so that all masters, even that
of the desk, are equally busy.
"""

from dataclasses import dataclass
from math import ceil, exp
from typing import Final

from bench.capacity_constants import Constants, Roles

_KIB_PER_GIB: Final = 2**20
#: Life of a tail after the end.
_TAIL_S: Final = 60
_US_PER_S: Final = 1e6


@dataclass(frozen=True, slots=True)
class Demand:
    """Load to plan for. ``duty``: share of the streams that generate; the others are open and wait.
    ``retention_s``: time for which an answer is kept after its end."""

    streams: int
    tokens_per_s: float
    duty: float
    answer_tokens: float
    retention_s: float

    @property
    def tokens(self) -> float:
        """Tokens a second, of all streams."""
        return self.streams * self.duty * self.tokens_per_s

    @property
    def requests(self) -> float:
        """Requests a second, in a steady state."""
        return self.tokens / self.answer_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """Number of processes of one cluster. ``masters`` is the larger of the needs of CPU and memory. ``cores`` are in
    use, not bought; ``desk_cores`` are the desk's part of them."""

    gateways: int
    workers: int
    masters: int
    masters_for_memory: int
    cores: Roles
    desk_cores: float
    redis_gib: float

    @property
    def cores_in_use(self) -> float:
        return self.cores.gateway + self.cores.worker + self.cores.redis


def plan(c: Constants, demand: Demand) -> Plan:
    """Add processes until none is planned beyond ``utilisation``. This ends: a token costs one exchange at most."""
    redis_gib = redis_memory_gib(c, demand)
    for_memory = ceil(redis_gib / (c.limits.utilisation * c.limits.redis_gib))
    gateways, workers, masters = 1, 1, for_memory
    while True:
        cores = _cores(c, demand, gateways, workers, masters)
        need = (
            max(gateways, _processes(c, demand, cores.gateway, c.kib_per_stream.gateway, c.limits.gateway_gib)),
            max(workers, _processes(c, demand, cores.worker, c.kib_per_stream.worker, c.limits.worker_gib)),
            max(masters, ceil(cores.redis / c.limits.utilisation)),
        )
        if need == (gateways, workers, masters):
            return Plan(gateways, workers, masters, for_memory, cores, desk_cores(c, demand), redis_gib)
        gateways, workers, masters = need


def desk_cores(c: Constants, demand: Demand) -> float:
    """Return the cores that the desk uses, which can have no more than one."""
    us = demand.requests * c.desk.us_per_request
    us += demand.streams * c.desk.holds_per_s * c.desk.us_per_hold
    return us / _US_PER_S


def redis_memory_gib(c: Constants, demand: Demand) -> float:
    """Return the memory of open streams, half-way through their answers, and of ended ones until retention ends."""
    half = c.kib_per_stream.redis + c.redis_bytes_per_token * demand.answer_tokens / 2 / 1024
    kept = (c.after_the_end.answer + c.after_the_end.token * demand.answer_tokens) / 1024
    tail = c.after_the_end.tail_token * demand.answer_tokens / 1024
    ended = demand.retention_s * kept + min(demand.retention_s, _TAIL_S) * tail
    return (demand.streams * half + demand.requests * ended) / _KIB_PER_GIB


def hit(count: float, tokens: float) -> float:
    """Return how many of ``count`` places get at least one of ``tokens`` that fall at random."""
    return count * (1 - exp(-tokens / count))


def _processes(c: Constants, demand: Demand, cores: float, kib_per_stream: float, gib: float) -> int:
    limits, streams = c.limits, demand.streams
    for_cpu = cores / limits.utilisation
    for_memory = streams * kib_per_stream / (limits.utilisation * gib * _KIB_PER_GIB)
    return ceil(max(for_cpu, for_memory, streams / (limits.utilisation * limits.file_descriptors)))


def _cores(c: Constants, demand: Demand, gateways: int, workers: int, masters: int) -> Roles:
    """Return the cores in use. The first exchange of a batch is in the cost of a token."""
    gathered, exchange = c.gathered_s, c.cpu_us_per_exchange
    by_gateways = gateways * beyond_first(masters, gathered.gateway, demand.tokens / gateways)
    by_workers = workers * beyond_first(masters, gathered.worker, demand.tokens / workers)
    return Roles(
        gateway=_common(c, demand, "gateway") + by_gateways * exchange.gateway / _US_PER_S,
        worker=_common(c, demand, "worker") + by_workers * exchange.worker / _US_PER_S,
        redis=_common(c, demand, "redis") + (by_gateways + by_workers) * exchange.redis / _US_PER_S,
    )


def beyond_first(places: int, gathered_s: float, tokens_per_s: float) -> float:
    """Return the exchanges of one process a second, less the first of each batch."""
    return max(0.0, hit(places, tokens_per_s * gathered_s) - 1) / gathered_s


def _common(c: Constants, demand: Demand, role: str) -> float:
    """Return the cores of one role, independent of the number of processes."""
    waiting = demand.streams * (1 - demand.duty)
    tokens, requests = demand.tokens * getattr(c.cpu_us_per_token, role), demand.requests
    us = tokens + requests * getattr(c.cpu_us_per_request, role)
    return float(us + waiting * getattr(c.cpu_us_per_waiting_stream_s, role)) / _US_PER_S
