"""One target, freshly started, with a provider behind it: where a shape is measured."""

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
from bench.client import Asked, Job
from bench.cpu import busy_s, cpu_by_role, cpu_s
from bench.targets.base import Ask, Target

#: What a measurement gives: name → number. Names are listed in ``bench/figures.py``.
Values = dict[str, float]
PROMPT_BYTES = 100
_WARM_UP_STREAMS = 20
#: For all of a stage, start and warm-up counted.
_PATIENCE_S = 300.0


class StageFailed(Exception):
    """The measurement does not count; the message says why."""


class Stage:
    """``seconds``: how long a paced answer lasts."""

    def __init__(self, target: Target, provider: ProviderProcess, seconds: float) -> None:
        self.target = target
        self.provider = provider
        self.seconds = seconds

    def job(self, model: str, streams: int, *, over_s: float, tokens: int | None, prompt_bytes: int = 0) -> Job:
        prompt = "x" * (prompt_bytes or PROMPT_BYTES)
        return Job(
            port=self.target.port,
            asks=[asked(self.target.ask(model, prompt))],
            count=streams,
            over_s=over_s,
            end=self.target.end.decode(),
            tokens=tokens,
            timeout_s=3 * self.seconds + over_s + 60,
        )

    async def run(self, job: Job, on_first: Callable[[], Awaitable[None]] | None = None) -> dict[str, Any]:
        """The client's result. Raises :class:`StageFailed` where not one stream came through."""
        told = await run_client(job, on_first)
        if not told["ok"]:
            raise StageFailed(f"no stream came through: {told['failures']}")
        return told

    async def warm_up(self) -> None:
        """Caches, connections, and code that runs for the first time."""
        for tokens in (1, 50):
            over_s = 0.5
            await self.run(self.job(pace.paced(50, tokens), _WARM_UP_STREAMS, over_s=over_s, tokens=tokens))

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by role."""
        return cpu_by_role(self.target.processes)


class CpuLog:
    """CPU by role, sampled beside a running measurement, so that any window of it can be told afterwards."""

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
        """CPU seconds by role within the window, as straight lines between samples."""
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


def asked(ask: Ask) -> Asked:
    return Asked(path=ask.path, body=ask.body.decode(), method=ask.method, headers=dict(ask.headers or {}))


async def on_fresh_stage(
    target: Target, provider: ProviderProcess, seconds: float, measure: Callable[[Stage], Awaitable[Values]]
) -> Values:
    """Start, warm up, measure, stop. Raises whatever goes wrong. ``others_cores`` of the values: what else ran on
    this machine meanwhile, and made everything dearer."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await target.start(provider.url, Path(folder))
                stage = Stage(target, provider, seconds)
                await stage.warm_up()
                begun, busy, own = time.monotonic(), busy_s(), cpu_s(os.getpid())
                values = await measure(stage)
                others_s = busy_s() - busy - (cpu_s(os.getpid()) - own)
                return values | {"others_cores": max(0.0, others_s / (time.monotonic() - begun))}
        except TimeoutError:
            raise StageFailed(f"not within {_PATIENCE_S:g} s") from None
        finally:
            await target.stop()
