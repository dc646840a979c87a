"""Resume storm: all clients of a gateway are cut at once and return at once, as after a deploy."""

from dataclasses import dataclass

import msgspec

from bench import pace
from bench.children import run_client
from bench.load import cost, outcome
from bench.resuming import Storm
from bench.stage import CpuLog, Stage, StageFailed, Values
from bench.targets.headrace import Headrace


@dataclass(frozen=True, slots=True)
class ResumeStorm:
    """Shape of ``clients`` live streams of ``rate`` tokens a second, one reader each. Readers stay away long enough
    to miss a token, so that a return waits for the target and not for the provider."""

    clients: int
    rate: float
    over_s: float

    async def measure(self, stage: Stage) -> Values:
        if not isinstance(stage.target, Headrace):
            raise StageFailed("this target cannot resume")
        away_s = 2 / self.rate
        tokens = round(self.rate * (self.over_s + away_s + stage.seconds))
        job = stage.job(pace.paced(self.rate, tokens), self.clients, over_s=self.over_s, tokens=tokens)
        storm = msgspec.convert(msgspec.to_builtins(job) | {"away_s": away_s}, Storm)
        async with CpuLog(stage) as cpu:
            result = await run_client(storm, module="bench.resuming")
        if not result["resumed_ms"]:
            raise StageFailed(f"no client resumed: {result['failures']}")
        missed = {f"missed_{name}_ms": ms for name, ms in result["resumed_ms"].items()}
        begun, ended = result["storm_us"]
        used = cost("resume", cpu.between(begun, ended), self.clients)
        return outcome(result) | missed | used | {"storm_ms": (ended - begun) / 1000}
