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
    _tap_port = 0

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self._tap_port}/0"

    async def start_servers(self, folder: Path) -> None:
        await super().start_servers(folder)
        self._tap = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.tap", str(self._broker.port), str(self.round_trip_ms)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._tap.stdout is not None
        self._tap_port = int(await self._tap.stdout.readline())

    async def stop_servers(self) -> None:
        await super().stop_servers()
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
