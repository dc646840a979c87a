"""Model of the processes that a number of streams needs: constants times rates, plus the cost of many shards.

Every process has one core, all streams are alike, nothing fails. One part is not a multiplication: the cost for each
Redis shard that a process talks to at a time depends on the number of both.
"""

import json
from dataclasses import dataclass
from math import ceil, exp
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("capacity.json")
_KIB_PER_GIB: Final = 2**20
#: Life of a tail after the end.
_TAIL_S: Final = 60
_US_PER_S: Final = 1e6


@dataclass(frozen=True, slots=True)
class Roles:
    """The same figure for each kind of process."""

    gateway: float
    worker: float
    redis: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources of one process, or of one Redis shard on a machine of its own."""

    utilisation: float
    file_descriptors: int
    max_clients: int
    connections_per_process: int
    gateway_gib: float
    worker_gib: float
    redis_gib: float
    network_gbit_s: float


@dataclass(frozen=True, slots=True)
class AfterTheEnd:
    """Bytes that an ended answer takes in Redis: itself, each of its tokens, and each in the tail for a minute."""

    answer: float
    token: float
    tail_token: float


@dataclass(frozen=True, slots=True)
class Constants:
    """Constants of ``capacity.json``, which names the source of each."""

    cpu_us_per_token: Roles
    cpu_us_per_request: Roles
    cpu_us_per_waiting_stream_s: Roles
    cpu_us_per_exchange: Roles
    cpu_us_per_xread: Roles
    gathered_s: Roles  # time over which tokens go into one exchange
    kib_per_stream: Roles
    bus_us_per_publish: float  # of a node: sending and receiving together
    bus_bytes_per_publish: float
    queue_us_per_request: float
    redis_bytes_per_token: float
    after_the_end: AfterTheEnd
    to_client_bytes: float
    redis_network_bytes: float  # the busier direction
    buckets: int
    limits: Limits


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
    """Number of processes. ``shards`` is the larger of the needs of CPU and memory. ``cores``: in use, not bought."""

    gateways: int
    workers: int
    shards: int
    shards_for_memory: int
    cores: Roles
    redis_gib: float

    @property
    def cores_in_use(self) -> float:
        return self.cores.gateway + self.cores.worker + self.cores.redis


def load(path: Path = FILE) -> Constants:
    values: dict[str, dict[str, Any]] = json.loads(path.read_text(), object_hook=_without_sources)
    bytes_per_token = values["network_bytes_per_token"]
    return Constants(
        cpu_us_per_token=Roles(**values["cpu_us_per_token"]),
        cpu_us_per_request=Roles(**values["cpu_us_per_request"]),
        cpu_us_per_waiting_stream_s=Roles(**values["cpu_us_per_waiting_stream_s"]),
        cpu_us_per_exchange=Roles(**values["cpu_us_per_exchange"]),
        cpu_us_per_xread=Roles(**values["cpu_us_per_xread"]),
        gathered_s=Roles(**values["gathered_s"]),
        kib_per_stream=Roles(**values["kib_per_stream"]),
        bus_us_per_publish=sum(values["bus_us_per_publish"].values()),
        bus_bytes_per_publish=values["bus_bytes_per_publish"]["value"],
        queue_us_per_request=values["queue_us_per_request"]["value"],
        redis_bytes_per_token=values["redis_bytes_per_token"]["value"],
        after_the_end=AfterTheEnd(**values["redis_bytes_after_the_end"]),
        to_client_bytes=bytes_per_token["to_client"],
        redis_network_bytes=max(bytes_per_token["into_redis"], bytes_per_token["out_of_redis"]),
        buckets=values["buckets"]["value"],
        limits=Limits(**values["limits"]),
    )


def _without_sources(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in {"from", "comment"}}


def plan(c: Constants, demand: Demand) -> Plan:
    """Add processes until none is planned beyond ``utilisation``. This ends: a token costs one exchange at most."""
    redis_gib = redis_memory_gib(c, demand)
    for_memory = ceil(redis_gib / (c.limits.utilisation * c.limits.redis_gib))
    gateways, workers, shards = 1, 1, for_memory
    while True:
        cores = _cores(c, demand, gateways, workers, shards)
        need = (
            max(gateways, _processes(c, demand, cores.gateway, c.kib_per_stream.gateway, c.limits.gateway_gib)),
            max(workers, _processes(c, demand, cores.worker, c.kib_per_stream.worker, c.limits.worker_gib)),
            max(shards, ceil(cores.redis / c.limits.utilisation)),
        )
        if need == (gateways, workers, shards):
            return Plan(gateways, workers, shards, for_memory, cores, redis_gib)
        gateways, workers, shards = need


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


def _cores(c: Constants, demand: Demand, gateways: int, workers: int, shards: int) -> Roles:
    """Return the cores in use. The first exchange and XREAD of a batch are in the cost of a token."""
    gathered, exchange, xread = c.gathered_s, c.cpu_us_per_exchange, c.cpu_us_per_xread
    by_gateways = gateways * _beyond_first(shards, gathered.gateway, demand.tokens / gateways)
    by_workers = workers * _beyond_first(shards, gathered.worker, demand.tokens / workers)
    buckets = c.buckets if shards > 1 else 1
    xreads = gateways * _beyond_first(buckets, gathered.gateway, demand.tokens / gateways)
    return Roles(
        gateway=_common(c, demand, "gateway") + (by_gateways * exchange.gateway + xreads * xread.gateway) / _US_PER_S,
        worker=_common(c, demand, "worker") + by_workers * exchange.worker / _US_PER_S,
        redis=_common(c, demand, "redis")
        + ((by_gateways + by_workers) * exchange.redis + xreads * xread.redis) / _US_PER_S,
    )


def _beyond_first(places: int, gathered_s: float, tokens_per_s: float) -> float:
    """Return the exchanges of one process a second, less the first of each batch."""
    return max(0.0, hit(places, tokens_per_s * gathered_s) - 1) / gathered_s


def _common(c: Constants, demand: Demand, role: str) -> float:
    """Return the cores of one role, independent of the number of processes."""
    waiting = demand.streams * (1 - demand.duty)
    tokens, requests = demand.tokens * getattr(c.cpu_us_per_token, role), demand.requests
    us = tokens + requests * getattr(c.cpu_us_per_request, role)
    return float(us + waiting * getattr(c.cpu_us_per_waiting_stream_s, role)) / _US_PER_S
