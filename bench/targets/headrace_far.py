"""Headrace whose gateways and workers are in another zone or region than its Redis."""

import asyncio
import sys
from pathlib import Path
from typing import ClassVar, Final

from bench.targets.headrace import Headrace

#: Round trips in milliseconds, by the targets' names.
ROUND_TRIPS_MS: Final = {"headrace_1ms": 1.0, "headrace_5ms": 5.0, "headrace_25ms": 25.0}


class _Far(Headrace):
    """Headrace behind a proxy that adds a round trip between its processes and Redis. The proxy is a process of its
    own, and its CPU does not count."""

    round_trip_ms: ClassVar[float]

    _tap: asyncio.subprocess.Process | None = None

    async def _start_broker(self, folder: Path) -> str:
        await super()._start_broker(folder)
        self._tap = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.tap", str(self._broker.port), str(self.round_trip_ms)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._tap.stdout is not None
        port = (await self._tap.stdout.readline()).decode().strip()
        return f"redis://127.0.0.1:{port}/0"

    async def stop(self) -> None:
        await super().stop()
        if self._tap is not None:
            self._tap.kill()
            await self._tap.wait()


class Headrace1ms(_Far):
    name = "headrace, Redis 1 ms away"
    round_trip_ms = ROUND_TRIPS_MS["headrace_1ms"]


class Headrace5ms(_Far):
    name = "headrace, Redis 5 ms away"
    round_trip_ms = ROUND_TRIPS_MS["headrace_5ms"]


class Headrace25ms(_Far):
    name = "headrace, Redis 25 ms away"
    round_trip_ms = ROUND_TRIPS_MS["headrace_25ms"]
