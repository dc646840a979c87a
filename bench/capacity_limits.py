"""Limits that more processes cannot remove: how far a plan is from each, and the load that reaches it."""

from dataclasses import dataclass, replace
from typing import Final

from bench.capacity_model import Constants, Demand, Plan, plan

_BITS_PER_GBIT: Final = 1e9
_FEWEST: Final = 100
_MOST: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. ``share`` is the used part; above 1 the limit is broken. ``fixable``: a known change of our code
    removes it."""

    name: str
    share: float
    fixable: bool = False


def limits(c: Constants, demand: Demand, planned: Plan) -> list[Limit]:
    bounds, streams = c.limits, demand.streams
    clustered = planned.shards > 1
    connections = bounds.connections_per_process
    publishes = demand.tokens if clustered else 0.0
    return [
        Limit(
            "PUBLISH to every node: network",
            _gbit(publishes * c.bus_bytes_per_publish) / bounds.network_gbit_s,
            fixable=True,
        ),
        Limit(
            "PUBLISH to every node: CPU left free",
            publishes * c.bus_us_per_publish / 1e6 / (1 - bounds.utilisation),
            fixable=True,
        ),
        Limit("the queue is one key", demand.requests * c.queue_us_per_request / 1e6 / bounds.utilisation),
        Limit(f"{c.buckets} buckets, at most one shard each", planned.shards / c.buckets),
        Limit("connections to a shard", (planned.gateways + planned.workers) * connections / bounds.max_clients),
        Limit(
            "network of a shard",
            _gbit(demand.tokens * c.redis_network_bytes) / planned.shards / bounds.network_gbit_s,
        ),
        Limit(
            "file descriptors of a gateway",
            (streams / planned.gateways + planned.shards * connections) / bounds.file_descriptors,
        ),
        Limit(
            "memory of a gateway", streams / planned.gateways * c.kib_per_stream.gateway / 2**20 / bounds.gateway_gib
        ),
    ]


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
