"""Simulation of a plan: places streams one by one at random, and plays through the reads of one gateway.

A stream has a bucket from its random id. A bucket's slot is Redis Cluster's own (CRC16 of the hash tag), and a shard
has a run of slots; ``dealt`` is the same with the buckets assigned evenly by hand. Streams are placed on gateways and
workers at random (workers take from a queue, so for them it is the worst case).
"""

from binascii import crc_hqx
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import mean
from typing import Final

from bench.capacity_model import Constants, Demand, Plan

_SLOTS: Final = 16384
_READS: Final = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hottest process of each kind against the mean, and the reads of one gateway at a time."""

    shards: int  # fewer than planned if there are too few buckets
    shard: float
    shard_dealt: float
    gateway: float
    worker: float
    xreads_at_once: float
    shards_at_once: float


def simulate(c: Constants, demand: Demand, plan: Plan, *, seed: int) -> Outcome:
    random = Random(seed)
    shards = min(plan.shards, c.buckets)
    digits = len(f"{c.buckets - 1:x}")
    by_slots = [slot_of(f"{bucket:0{digits}x}") * shards // _SLOTS for bucket in range(c.buckets)]
    dealt = [bucket * shards // c.buckets for bucket in range(c.buckets)]
    buckets = random.choices(range(c.buckets), k=demand.streams)
    at = random.choices(range(plan.gateways), k=demand.streams)
    workers = random.choices(range(plan.workers), k=demand.streams)
    first_gateway = [bucket for bucket, gateway in zip(buckets, at, strict=True) if gateway == 0]
    xreads, shards_read = (
        _reads(random, first_gateway, dealt, demand, c.gathered_s.gateway) if shards > 1 else (1.0, 1.0)
    )
    return Outcome(
        shards,
        hottest((by_slots[bucket] for bucket in buckets), shards),
        hottest((dealt[bucket] for bucket in buckets), shards),
        hottest(at, plan.gateways),
        hottest(workers, plan.workers),
        xreads,
        shards_read,
    )


def slot_of(tag: str) -> int:
    """Return the slot of Redis Cluster: CRC16, XMODEM."""
    return crc_hqx(tag.encode(), 0) % _SLOTS


def hottest(places: Iterable[int], count: int) -> float:
    """Return the load of the fullest of ``count`` places against the mean; 1 if all are alike."""
    taken = Counter(places)
    return max(taken.values()) * count / taken.total()


def _reads(
    random: Random, buckets: Sequence[int], shard_of: Sequence[int], demand: Demand, gathered_s: float
) -> tuple[float, float]:
    """Return (XREADs, shards) of one read of the tails, for a gateway with these streams: a bucket is an XREAD, a
    shard an exchange. A stream sends evenly, at a phase of its own."""
    per_read = demand.tokens_per_s * gathered_s
    streams = [(random.random(), bucket) for bucket in buckets if random.random() < demand.duty]
    xreads, shards_read = [], []
    for read in range(_READS):
        before, after = read * per_read, (read + 1) * per_read
        grown = {bucket for phase, bucket in streams if int(phase + after) > int(phase + before)}
        xreads.append(len(grown))
        shards_read.append(len({shard_of[bucket] for bucket in grown}))
    return mean(xreads), mean(shards_read)
