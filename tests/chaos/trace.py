"""The faults of a run, drawn from the seed alone."""

import random
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.link import Way


class Kind(StrEnum):
    WORKER_KILL = "worker killed"
    WORKER_STOP = "worker stopped beyond its lease"
    WORKER_BLINK = "worker stopped within its lease"
    WORKER_LEAVE = "worker terminated"
    WORKER_LEAVE_NOW = "worker terminated twice"
    GATEWAY_KILL = "gateway killed"
    GATEWAY_STOP = "gateway stopped beyond its lease"
    GATEWAY_BLINK = "gateway stopped within its lease"
    GATEWAY_LEAVE = "gateway terminated"
    BROKER_RESTART = "broker killed, restarted with its file"
    BROKER_EMPTY = "broker killed, restarted empty"
    BROKER_REWIND = "broker restarted with an older file"
    WORKER_KILL_REWIND = "worker killed, broker restarted with a file from before the takeover"
    BROKER_FREEZE = "broker frozen"
    BROKER_FULL = "broker out of memory"
    FLUSH_ALL = "FLUSHALL"
    SCRIPT_FLUSH = "SCRIPT FLUSH"
    CLIENT_KILL = "CLIENT KILL"
    CLIENT_LINK = "client - gateway"
    GATEWAY_LINK = "gateway - broker"
    WORKER_LINK = "worker - broker"
    PROVIDER_LINK = "worker - provider"
    RECEIVER_KILL = "receiver of webhooks stopped"
    RECEIVER_FAIL = "receiver of webhooks fails"
    RECEIVER_HANG = "receiver of webhooks hangs"
    ARCHIVE_AWAY = "archive away"
    NODE_KILL = "node killed, restarted empty after its failover"
    NODE_FREEZE = "node frozen"
    NODE_FULL = "node out of memory"
    FAILOVER = "failover by hand"
    SLOTS_MOVE = "slots moved key by key"
    SLOTS_MOVE_AT_ONCE = "slots moved at once"


class Harm(StrEnum):
    """A fault of a proxy."""

    RESET = "reset"
    REFUSE = "reset, then refused"
    SILENCE = "half-open"
    DELAY = "delayed"
    TRUNCATE = "truncated"


_WEIGHTS = {
    Kind.WORKER_KILL: 4,
    Kind.WORKER_STOP: 4,
    Kind.WORKER_BLINK: 2,
    Kind.WORKER_LEAVE: 3,
    Kind.WORKER_LEAVE_NOW: 1,
    Kind.GATEWAY_KILL: 3,
    Kind.GATEWAY_STOP: 2,
    Kind.GATEWAY_BLINK: 1,
    Kind.GATEWAY_LEAVE: 3,
    Kind.BROKER_RESTART: 3,
    Kind.BROKER_EMPTY: 3,
    Kind.BROKER_REWIND: 4,
    Kind.WORKER_KILL_REWIND: 3,
    Kind.BROKER_FREEZE: 3,
    Kind.BROKER_FULL: 2,
    Kind.FLUSH_ALL: 2,
    Kind.SCRIPT_FLUSH: 1,
    Kind.CLIENT_KILL: 2,
    Kind.CLIENT_LINK: 5,
    Kind.GATEWAY_LINK: 5,
    Kind.WORKER_LINK: 5,
    Kind.PROVIDER_LINK: 4,
    Kind.RECEIVER_KILL: 2,
    Kind.RECEIVER_FAIL: 2,
    Kind.RECEIVER_HANG: 1,
    Kind.ARCHIVE_AWAY: 3,
}
_EVERYWHERE = ("WORKER_", "GATEWAY_", "CLIENT_", "RECEIVER_", "ARCHIVE_")
_ON_CLUSTER = {
    **{kind: weight for kind, weight in _WEIGHTS.items() if kind.name.startswith(_EVERYWHERE)},
    Kind.PROVIDER_LINK: 4,
    Kind.SCRIPT_FLUSH: 1,
    Kind.NODE_KILL: 6,
    Kind.NODE_FREEZE: 6,
    Kind.NODE_FULL: 3,
    Kind.FAILOVER: 4,
    Kind.SLOTS_MOVE: 5,
    Kind.SLOTS_MOVE_AT_ONCE: 4,
}
for _kind in (Kind.WORKER_KILL_REWIND, Kind.GATEWAY_LINK, Kind.WORKER_LINK):  # they need one server, or its proxies
    del _ON_CLUSTER[_kind]
_LINKS = {Kind.CLIENT_LINK, Kind.GATEWAY_LINK, Kind.WORKER_LINK, Kind.PROVIDER_LINK}
#: In leases; everything else takes a while drawn from (0.05, 2).
_TIMES = {
    Kind.WORKER_STOP: (2.0, 3.5),
    Kind.WORKER_KILL_REWIND: (1.8, 2.5),
    Kind.WORKER_BLINK: (0.05, 0.3),
    Kind.GATEWAY_STOP: (1.5, 3.0),
    Kind.GATEWAY_BLINK: (0.05, 0.4),
    Kind.BROKER_FREEZE: (0.2, 2.5),
    Kind.NODE_FREEZE: (0.2, 2.5),
    Kind.ARCHIVE_AWAY: (0.5, 6.5),  # a worker waits for five leases
}
_OVERLAPPING = 0.2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``target``: which gateway or worker, where the kind has one. ``lasts``: in leases."""

    kind: Kind
    target: int
    lasts: float
    harm: Harm | None = None
    way: Way = Way.BOTH
    delay_s: float = 0.0

    def __str__(self) -> str:
        words = [self.kind.value, f"#{self.target + 1}"]
        if self.harm is not None:
            words.append(self.harm.value)
            words += [self.way.value] if self.harm is Harm.SILENCE else []
            words += [f"{self.delay_s:.2f} s"] if self.harm is Harm.DELAY else []
        return " ".join([*words, f"for {self.lasts:.2f} leases"])


@dataclass(frozen=True, slots=True)
class Round:
    """One fault, sometimes a second ``gap_s`` after the first; then time to heal, not always enough."""

    faults: tuple[Fault, ...]
    gap_s: float
    heal_s: float

    def __str__(self) -> str:
        return f"{' + '.join(map(str, self.faults))}; {self.heal_s:.1f} s to heal"


def draw_trace(seed: int, faults: int, *, on_cluster: bool = False) -> list[Round]:
    """Draw ``faults`` faults; each kind before any kind comes a second time, where there are enough."""
    rng = random.Random(f"{seed}:faults")
    weights = _ON_CLUSTER if on_cluster else _WEIGHTS
    once = list(weights)
    rng.shuffle(once)
    more = rng.choices(list(weights), list(weights.values()), k=max(0, faults - len(once)))
    kinds = (once + more)[:faults]
    rounds = []
    while kinds:
        count = 2 if len(kinds) > 1 and rng.random() < _OVERLAPPING else 1
        drawn = tuple(_draw(rng, kind) for kind in kinds[:count])
        del kinds[:count]
        rounds.append(Round(drawn, rng.uniform(0.0, 1.0), rng.uniform(0.3, 3.0)))
    return rounds


def _draw(rng: random.Random, kind: Kind) -> Fault:
    harm = rng.choice(list(Harm)) if kind in _LINKS else None
    target, lasts = rng.randrange(2), rng.uniform(*_TIMES.get(kind, (0.05, 2.0)))
    return Fault(kind, target, lasts, harm, rng.choice(list(Way)), rng.uniform(0.02, 0.3))
