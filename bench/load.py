"""Load shapes: a number of streams at a rate. Measures the cost of each token and its latency."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import pace
from bench.client import JobRequest
from bench.cpu import cpu_s
from bench.stage import CpuLog, Stage, Values
from bench.tally import STEP_US, percentile

#: Left out at both ends of a window, so that opening and closing do not count as tokens.
_SETTLE_US, _MARGIN_US = 1_000_000, 500_000

Requests = Callable[[str, int], list[JobRequest]]


@dataclass(frozen=True, slots=True)
class Load:
    """Shape of ``streams`` streams, started over ``over_s``. ``rate``: tokens a second of each stream; None is as
    fast as the socket accepts. ``tokens`` of each stream; None is as many as the rate gives in the benchmark's
    seconds. ``per_send``: tokens in a send of an unpaced provider. ``long``: the benchmark's
    seconds begin when all streams have started."""

    streams: int
    rate: float | None
    over_s: float
    tokens: int | None = None
    per_send: int = 1
    prompt_bytes: int = 0
    long: bool = False

    async def measure(self, stage: Stage, requests: Requests | None = None) -> Values:
        """Measure. ``requests`` returns those for a model and a number of streams, instead of the target's own."""
        seconds = stage.seconds + (self.over_s if self.long else 0)
        tokens = self.tokens if self.tokens is not None else max(1, round((self.rate or 1) * seconds))
        model = pace.flood(tokens, self.per_send) if self.rate is None else pace.paced(self.rate, tokens)
        job = stage.job(model, self.streams, over_s=self.over_s, tokens=tokens, prompt_bytes=self.prompt_bytes)
        if requests is not None:
            job.requests = requests(model, self.streams)
        async with CpuLog(stage) as cpu:
            before, provider_s = stage.cpu(), cpu_s(stage.provider.pid)
            result = await stage.run(job)
            after = stage.cpu()
        values = outcome(result)
        values["provider_cpu_us"] = (cpu_s(stage.provider.pid) - provider_s) * 1e6 / result["tokens"]
        values |= cost("all", {role: after[role] - before[role] for role in after}, result["tokens"])
        if self.rate is None:
            values["tokens_per_s"] = result["tokens"] / max(1e-6, (result["last_us"] - result["first_us"]) / 1e6)
            values |= cost("token", {role: after[role] - before[role] for role in after}, result["tokens"])
        else:
            values |= steady(result, cpu, over_s=self.over_s, seconds=tokens / self.rate)
            if "tokens_per_s" in values:
                values["share"] = values["tokens_per_s"] / (self.rate * self.streams)
        return values


def steady(result: dict[str, Any], cpu: CpuLog, *, over_s: float, seconds: float) -> Values:
    """Return rate and cost of the steady part. It begins once all streams run and the backlog is gone, and ends
    when the first stream should. For a target that is too slow the second half counts. Empty if no time is left."""
    begun, ends = result["first_us"], result["first_us"] + round(seconds * 1e6)
    settled = max(begun + round(over_s * 1e6), result["all_first_us"]) + _SETTLE_US
    begin = _round_up(min(settled, (begun + ends) // 2))
    end = (ends - _MARGIN_US) // STEP_US * STEP_US
    if end - begin < _MARGIN_US:
        return {}
    tokens = sum(count for step, count in result["timeline"] if begin <= step * STEP_US < end)
    if not tokens:
        return {}
    return {"tokens_per_s": tokens / (end - begin) * 1e6} | cost("token", cpu.between(begin, end), tokens)


def outcome(result: dict[str, Any]) -> Values:
    """Return the client's counts and times, without the rate."""
    values: Values = {
        "streams": result["streams"],
        "failed": result["streams"] - result["ok"],
        "gaps": result["gaps"],
        "duplicates": result["duplicates"],
        "tokens": result["tokens"],
        "client_cpu_us": result["cpu_s"] * 1e6 / max(1, result["tokens"]),
    }
    values |= {f"failed: {why}": count for why, count in result["failures"].items()}
    values |= {f"latency_{name}_ms": ms for name, ms in result["latency_ms"].items()}
    if ttft := result["ttft_ms"]:
        values |= {"ttft_p50_ms": statistics.median(ttft), "ttft_p99_ms": percentile(ttft, 0.99)}
    return values


def cost(of: str, cpu: dict[str, float], count: int) -> Values:
    """Return CPU microseconds each, by role and in all. Empty for a target without processes."""
    if not cpu or not count:
        return {}
    each = {f"cpu_{of}_us.{role}": seconds * 1e6 / count for role, seconds in cpu.items()}
    return {**each, f"cpu_{of}_us": sum(each.values())}


def _round_up(us: int) -> int:
    return -(-us // STEP_US) * STEP_US
