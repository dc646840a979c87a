"""Limits that more processes cannot remove: how far a plan is from each, and the load that reaches it."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from bench.capacity_constants import Constants
from bench.capacity_model import Demand, Plan, plan

_GIB: Final = 2**30
_BITS_PER_GBIT: Final = 1e9
_FEWEST: Final = 100
_MOST: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. ``share`` is the used part; above 1 the limit is broken."""

    name: str
    share: float


def limits(c: Constants, demand: Demand, planned: Plan) -> list[Limit]:
    """Return the limits of one cluster."""
    bounds, streams = c.limits, demand.streams
    connections = bounds.connections_per_process
    kept = demand.requests * demand.retention_s * c.desk.bytes_per_answer / _GIB
    return [
        Limit("CPU of the desk, one slot", planned.desk_cores / bounds.utilisation),
        Limit("memory of the desk", kept / (bounds.utilisation * bounds.redis_gib)),
        Limit(f"{c.buckets} buckets, at most a master each", planned.masters / c.buckets),
        Limit("connections to a master", (planned.gateways + planned.workers) * connections / bounds.max_clients),
        Limit(
            "network of a master",
            _gbit(demand.tokens * c.redis_network_bytes) / planned.masters / bounds.network_gbit_s,
        ),
        Limit(
            "file descriptors of a gateway",
            (streams / planned.gateways + planned.masters * connections) / bounds.file_descriptors,
        ),
        Limit(
            "memory of a gateway", streams / planned.gateways * c.kib_per_stream.gateway / 2**20 / bounds.gateway_gib
        ),
    ]


def clusters(c: Constants, demand: Demand) -> int:
    """Return the smallest number of clusters with equal shares of a load that breaks no limit."""
    count = 1
    while _is_too_much(c, share_of(demand, count)):
        count += 1
    return count


def _is_too_much(c: Constants, demand: Demand) -> bool:
    return any(limit.share > 1 for limit in limits(c, demand, plan(c, demand)))


def share_of(demand: Demand, clusters: int) -> Demand:
    return replace(demand, streams=ceil(demand.streams / clusters))


def broken_from(c: Constants, demand: Demand, index: int) -> int | None:
    """Return the number of streams that reaches limit ``index``, other things equal; None beyond ten million."""
    low, high = _FEWEST, _MOST
    if not _is_broken(c, demand, index, high):
        return None
    while high > low * 1.01:
        middle = round((low * high) ** 0.5)
        if _is_broken(c, demand, index, middle):
            high = middle
        else:
            low = middle
    return high


def _is_broken(c: Constants, demand: Demand, index: int, streams: int) -> bool:
    larger = replace(demand, streams=streams)
    return limits(c, larger, plan(c, larger))[index].share > 1


def to_clients_gbit_s(c: Constants, demand: Demand) -> float:
    """Return the traffic to clients, which providers of networks charge for."""
    return _gbit(demand.tokens * c.to_client_bytes)


def _gbit(bytes_per_s: float) -> float:
    return bytes_per_s * 8 / _BITS_PER_GBIT
