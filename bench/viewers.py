"""Viewers of one stream on one gateway: measures the cost of a delivery, and the reads of Redis per token."""

from dataclasses import dataclass

import httpx2
from redis.asyncio import Redis

from bench import pace
from bench.load import outcome, steady
from bench.stage import CpuLog, Stage, StageFailed, Values, job_request
from bench.targets.base import TargetRequest
from bench.targets.headrace import Headrace


@dataclass(frozen=True, slots=True)
class Viewers:
    """Shape of ``count`` viewers of one stream of ``rate`` tokens a second."""

    count: int
    rate: float
    over_s: float

    async def measure(self, stage: Stage) -> Values:
        target = stage.target
        if not isinstance(target, Headrace):
            raise StageFailed("a stream of this target has only one reader")
        tokens = round(self.rate * (stage.seconds + self.over_s))
        stream_id = await _begin(target, pace.paced(self.rate, tokens))
        job = stage.job("", self.count, over_s=self.over_s, tokens=tokens)
        job.requests = [job_request(TargetRequest(f"/chat/stream/{stream_id}", b"", method="GET"))]
        job.forget_ramp = True  # a late viewer receives old tokens first
        reads = await _xreads(target)
        async with CpuLog(stage) as cpu:
            result = await stage.run(job)
        values = outcome(result)
        values["xreads_per_token"] = (await _xreads(target) - reads) / tokens
        in_window = steady(result, cpu, over_s=self.over_s, seconds=tokens / self.rate)
        values |= {name.replace("cpu_token", "cpu_delivery"): value for name, value in in_window.items()}
        return values


async def _begin(target: Headrace, model: str) -> str:
    """Create the stream by `POST /chat` and return its id."""
    request = target.request(model, "hi")
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(f"http://127.0.0.1:{target.port}/chat", content=request.body)
        stream_id: str = answer.json()["stream_id"]
        return stream_id


async def _xreads(target: Headrace) -> int:
    async with Redis.from_url(target.redis_url) as client:
        stats = await client.info("commandstats")
    return int(stats.get("cmdstat_xread", {}).get("calls", 0))
