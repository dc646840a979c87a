"""System without streams: measures its CPU a second, and the CPU of an answer beside its tokens."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from bench.load import Load
from bench.stage import Stage, StageFailed, Values

#: Ended streams linger for ten seconds.
SETTLE_S: Final = 12.0
Cost = dict[str, float]


@dataclass(frozen=True, slots=True)
class IdleSystem:
    """Shape without streams, measured for ``seconds``."""

    seconds: float

    async def measure(self, stage: Stage) -> Values:
        _require_processes(stage)
        await asyncio.sleep(SETTLE_S)
        costs = await idle_cost(stage, self.seconds)
        by_role = {f"idle_cpu_ms.{role}": cost for role, cost in costs.items()}
        return {**_nothing_wrong(), **by_role, "idle_cpu_ms": sum(costs.values())}


@dataclass(frozen=True, slots=True)
class Answers:
    """Shape of ``answers`` answers of one token each, ``per_s`` a second. The idle system's CPU is subtracted."""

    answers: int
    per_s: float
    idle_s: float = 20

    async def measure(self, stage: Stage) -> Values:
        _require_processes(stage)
        await asyncio.sleep(SETTLE_S)
        idle = await idle_cost(stage, self.idle_s)
        costs, values = await answer_cost(stage, self.load, idle)
        by_role = {f"answer_cpu_ms.{role}": cost for role, cost in costs.items()}
        return {**values, **by_role, "answer_cpu_ms": sum(costs.values())}

    @property
    def load(self) -> Load:
        return Load(self.answers, None, self.answers / self.per_s, tokens=1)


async def idle_cost(stage: Stage, seconds: float) -> Cost:
    """Return CPU milliseconds a second, by role."""
    before, begun = stage.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    elapsed = time.monotonic() - begun
    return {role: (after - before[role]) * 1000 / elapsed for role, after in stage.cpu().items()}


async def answer_cost(stage: Stage, load: Load, idle: Cost) -> tuple[Cost, Values]:
    """Return CPU milliseconds of an answer by role, without idleness, and the values of the load."""
    before, begun = stage.cpu(), time.monotonic()
    values = await load.measure(stage)
    elapsed = time.monotonic() - begun
    if values["failed"]:
        raise StageFailed(f"{values['failed']:g} answers failed")
    costs = {
        role: ((after - before[role]) * 1000 - idle[role] * elapsed) / load.streams
        for role, after in stage.cpu().items()
    }
    return costs, values


def _require_processes(stage: Stage) -> None:
    if not stage.target.processes:
        raise StageFailed("this target has no processes of its own")


def _nothing_wrong() -> Values:
    return {"gaps": 0, "duplicates": 0}
