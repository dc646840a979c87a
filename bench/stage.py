"""Stage of a measurement: one target, freshly started, with a provider behind it."""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import pace
from bench.children import ProviderProcess, run_client
from bench.client import Job, JobRequest
from bench.cpu import busy_s, cpu_by_role, cpu_s
from bench.targets.base import Target, TargetRequest

#: Result of a measurement: name → number. Names are listed in ``bench/figures.py``.
Values = dict[str, float]
PROMPT_BYTES = 100
_WARM_UP_STREAMS = 20
#: Limit for a whole stage, start and warm-up included.
_TIMEOUT_S = 300.0


class StageFailed(Exception):
    """The measurement does not count; the message has the reason."""


class Stage:
    """Target and provider of a measurement. ``seconds``: duration of a paced answer."""

    def __init__(self, target: Target, provider: ProviderProcess, seconds: float) -> None:
        self.target = target
        self.provider = provider
        self.seconds = seconds

    def job(self, model: str, streams: int, *, over_s: float, tokens: int | None, prompt_bytes: int = 0) -> Job:
        prompt = "x" * (prompt_bytes or PROMPT_BYTES)
        return Job(
            port=self.target.port,
            requests=[job_request(self.target.request(model, prompt))],
            count=streams,
            over_s=over_s,
            end=self.target.end.decode(),
            tokens=tokens,
            timeout_s=3 * self.seconds + over_s + 60,
        )

    async def run(self, job: Job, on_first: Callable[[], Awaitable[None]] | None = None) -> dict[str, Any]:
        """Return the client's result. Raises :class:`StageFailed` if every stream failed."""
        result = await run_client(job, on_first)
        if not result["ok"]:
            raise StageFailed(f"all streams failed: {result['failures']}")
        return result

    async def warm_up(self) -> None:
        """Fill caches, open connections, and run all code once."""
        for tokens in (1, 50):
            over_s = 0.5
            await self.run(self.job(pace.paced(50, tokens), _WARM_UP_STREAMS, over_s=over_s, tokens=tokens))

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds so far, by role."""
        return cpu_by_role(self.target.processes)


class CpuLog:
    """Samples of CPU by role during a measurement, from which any window can be computed afterwards."""

    def __init__(self, stage: Stage, every_s: float = 0.1) -> None:
        self._stage = stage
        self._every_s = every_s
        self._samples: list[tuple[int, dict[str, float]]] = []

    async def __aenter__(self) -> "CpuLog":
        self._sample()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._sample()

    def between(self, from_us: int, to_us: int) -> dict[str, float]:
        """Return the CPU seconds by role within the window, interpolated between samples."""
        begin, end = self._at(from_us), self._at(to_us)
        return {role: end[role] - begin[role] for role in end}

    def _sample(self) -> None:
        self._samples.append((time.monotonic_ns() // 1000, self._stage.cpu()))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self._sample()

    def _at(self, at_us: int) -> dict[str, float]:
        earlier = self._samples[0]
        for later in self._samples:
            if later[0] >= at_us:
                share = (at_us - earlier[0]) / max(1, later[0] - earlier[0])
                return {role: cpu + (later[1][role] - cpu) * share for role, cpu in earlier[1].items()}
            earlier = later
        return earlier[1]


def job_request(request: TargetRequest) -> JobRequest:
    """Convert a request for JSON."""
    return JobRequest(
        path=request.path, body=request.body.decode(), method=request.method, headers=dict(request.headers or {})
    )


async def on_fresh_stage(
    target: Target, provider: ProviderProcess, seconds: float, measure: Callable[[Stage], Awaitable[Values]]
) -> Values:
    """Start, warm up, measure, stop. Raises any error on the way. ``others_cores`` of the values: cores that other
    programs used meanwhile, which makes everything dearer."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await target.start(provider.url, Path(folder))
                stage = Stage(target, provider, seconds)
                await stage.warm_up()
                begun, busy, own = time.monotonic(), busy_s(), cpu_s(os.getpid())
                values = await measure(stage)
                others_s = busy_s() - busy - (cpu_s(os.getpid()) - own)
                return values | {"others_cores": max(0.0, others_s / (time.monotonic() - begun))}
        except TimeoutError:
            raise StageFailed(f"timeout: not finished within {_TIMEOUT_S:g} s") from None
        finally:
            await target.stop()
