"""Simulation of a plan: places streams one by one at random, and plays through the reads of one gateway.

A stream has a bucket from its random id, the tag of the bucket has a slot, and a master has a run of slots. Streams
are placed on gateways and workers at random (workers take from a queue, so for them it is the worst case).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import mean
from typing import Final

from bench.capacity_constants import Constants
from bench.capacity_model import Demand, Plan
from shared.broker.cluster.slots import BUCKET_TAGS, SLOTS, slot_of

_READS: Final = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hottest process of each kind against the mean, and the masters of which one gateway reads at a time."""

    masters: int  # fewer than planned if there are too few buckets
    master: float
    gateway: float
    worker: float
    masters_at_once: float


def simulate(c: Constants, demand: Demand, plan: Plan, *, seed: int) -> Outcome:
    random = Random(seed)
    masters = min(plan.masters, c.buckets)
    master_of = [slot_of(f"{{{tag}}}") * masters // SLOTS for tag in BUCKET_TAGS]
    buckets = random.choices(range(c.buckets), k=demand.streams)
    at = random.choices(range(plan.gateways), k=demand.streams)
    workers = random.choices(range(plan.workers), k=demand.streams)
    first_gateway = [bucket for bucket, gateway in zip(buckets, at, strict=True) if gateway == 0]
    return Outcome(
        masters,
        hottest((master_of[bucket] for bucket in buckets), masters),
        hottest(at, plan.gateways),
        hottest(workers, plan.workers),
        _reads(random, first_gateway, master_of, demand, c.gathered_s.gateway),
    )


def hottest(places: Iterable[int], count: int) -> float:
    """Return the load of the fullest of ``count`` places against the mean; 1 if all are alike."""
    taken = Counter(places)
    return max(taken.values()) * count / taken.total()


def _reads(
    random: Random, buckets: Sequence[int], master_of: Sequence[int], demand: Demand, gathered_s: float
) -> float:
    """Return how many masters have sent something at one read, to a gateway with these streams. A stream sends at an
    even pace, at a phase of its own."""
    per_read = demand.tokens_per_s * gathered_s
    streams = [(random.random(), bucket) for bucket in buckets if random.random() < demand.duty]
    counts = []
    for read in range(_READS):
        before, after = read * per_read, (read + 1) * per_read
        counts.append(len({master_of[b] for phase, b in streams if int(phase + after) > int(phase + before)}))
    return mean(counts)
