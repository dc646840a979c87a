"""Idle streams: one token, then silence. Measures the memory of each, and the CPU of all a second."""

import asyncio
from dataclasses import dataclass

from bench import pace
from bench.cpu import pss_bytes
from bench.load import outcome
from bench.stage import Stage, Values

_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Shape of ``streams`` idle streams, opened over ``over_s``."""

    streams: int
    over_s: float

    async def measure(self, stage: Stage) -> Values:
        roles = stage.target.processes
        before = {role: sum(map(pss_bytes, pids)) for role, pids in roles.items()}
        values: Values = {}

        async def watch() -> None:
            await asyncio.sleep(_SETTLE_S)
            begun = stage.cpu()
            await asyncio.sleep(stage.seconds)
            ended = stage.cpu()
            for role, pids in roles.items():
                values[f"memory_kib.{role}"] = (sum(map(pss_bytes, pids)) - before[role]) / 1024 / self.streams
                values[f"idle_cpu_ms.{role}"] = (ended[role] - begun[role]) * 1000 / stage.seconds

        job = stage.job(pace.IDLE, self.streams, over_s=self.over_s, tokens=None)
        job.leave = "cut"
        job.hold_s = stage.seconds + 2 * _SETTLE_S
        result = await stage.run(job, watch)
        for figure in ("memory_kib", "idle_cpu_ms"):
            if roles:
                values[figure] = sum(values[f"{figure}.{role}"] for role in roles)
        return values | outcome(result)
