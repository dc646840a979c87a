"""Cancel storm: stops all streams at once, and measures the time until the provider's connections are closed."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from bench import pace
from bench.load import outcome
from bench.stage import Stage, StageFailed, Values
from bench.tally import percentile
from bench.targets.headrace import Headrace

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class CancelStorm:
    """Cancels Headrace's streams by its API. For other targets the client disconnects, the only way it has."""

    streams: int
    rate: float
    over_s: float

    async def measure(self, stage: Stage) -> Values:
        await stage.provider.aborted()
        job = stage.job(pace.paced(self.rate, 10_000), self.streams, over_s=self.over_s, tokens=None)
        job.leave = "cancel" if isinstance(stage.target, Headrace) else "cut"
        job.hold_s = 1.0
        result = await stage.run(job)
        aborted_us = await self._aborted(stage)
        if len(aborted_us) < self.streams:
            raise StageFailed(f"{self.streams - len(aborted_us)} answers still ran after {_TIMEOUT_S:g} s")
        after_ms = sorted((at - result["left_us"]) / 1000 for at in aborted_us)
        return outcome(result) | {
            "closed_p50_ms": percentile(after_ms, 0.5),
            "closed_p99_ms": percentile(after_ms, 0.99),
            "closed_all_ms": after_ms[-1],
        }

    async def _aborted(self, stage: Stage) -> list[int]:
        aborted_us: list[int] = []
        deadline = time.monotonic() + _TIMEOUT_S
        while len(aborted_us) < self.streams and time.monotonic() < deadline:
            reply: dict[str, Any] = await stage.provider.aborted()
            aborted_us += reply["aborted_us"]
            await asyncio.sleep(0.05)
        return aborted_us
