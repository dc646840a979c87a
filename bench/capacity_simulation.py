"""A plan tried out: streams placed one by one at random, and the reads of one gateway played through.

Streams come with a bucket from their random id. A bucket's slot is Redis Cluster's own (CRC16 of the hash tag), and
a shard has a run of slots; ``dealt`` is the same with the buckets dealt out evenly by hand. Connections come to
gateways and workers at random (workers take from a queue, so for them it is the worst case).
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
    """The hottest of each kind against the mean, and what one gateway asks for at a time."""

    shards: int  # fewer than planned where buckets do not suffice
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
    mine = [bucket for bucket, gateway in zip(buckets, at, strict=True) if gateway == 0]
    xreads, asked = _reads(random, mine, dealt, demand, c.gathered_s.gateway) if shards > 1 else (1.0, 1.0)
    return Outcome(
        shards,
        hottest((by_slots[bucket] for bucket in buckets), shards),
        hottest((dealt[bucket] for bucket in buckets), shards),
        hottest(at, plan.gateways),
        hottest(workers, plan.workers),
        xreads,
        asked,
    )


def slot_of(tag: str) -> int:
    """Redis Cluster's: CRC16, XMODEM."""
    return crc_hqx(tag.encode(), 0) % _SLOTS


def hottest(places: Iterable[int], count: int) -> float:
    """How much more than the mean the fullest of ``count`` places has; 1 where all are alike."""
    taken = Counter(places)
    return max(taken.values()) * count / taken.total()


def _reads(
    random: Random, buckets: Sequence[int], shard_of: Sequence[int], demand: Demand, gathered_s: float
) -> tuple[float, float]:
    """(XREADs, shards) that one read of the tails takes, of a gateway with these streams: a bucket is an XREAD, a
    shard an exchange. A stream sends evenly, at a phase of its own."""
    per_read = demand.tokens_per_s * gathered_s
    streams = [(random.random(), bucket) for bucket in buckets if random.random() < demand.duty]
    xreads, asked = [], []
    for read in range(_READS):
        before, after = read * per_read, (read + 1) * per_read
        grown = {bucket for phase, bucket in streams if int(phase + after) > int(phase + before)}
        xreads.append(len(grown))
        asked.append(len({shard_of[bucket] for bucket in grown}))
    return mean(xreads), mean(asked)
