"""All clients of a gateway cut at once and back at once, as after a deploy or a change of network."""

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
    """``clients`` live streams of ``rate`` tokens a second, one reader each. They stay away long enough for every
    one to miss a token, so that what a return waits for is the target and not the provider."""

    clients: int
    rate: float
    over_s: float

    async def measure(self, stage: Stage) -> Values:
        if not isinstance(stage.target, Headrace):
            raise StageFailed("cannot resume")
        away_s = 2 / self.rate
        tokens = round(self.rate * (self.over_s + away_s + stage.seconds))
        job = stage.job(pace.paced(self.rate, tokens), self.clients, over_s=self.over_s, tokens=tokens)
        storm = msgspec.convert(msgspec.to_builtins(job) | {"away_s": away_s}, Storm)
        async with CpuLog(stage) as cpu:
            told = await run_client(storm, module="bench.resuming")
        if not told["resumed_ms"]:
            raise StageFailed(f"nobody came back: {told['failures']}")
        missed = {f"missed_{name}_ms": ms for name, ms in told["resumed_ms"].items()}
        begun, ended = told["storm_us"]
        used = cost("resume", cpu.between(begun, ended), self.clients)
        return outcome(told) | missed | used | {"storm_ms": (ended - begun) / 1000}
