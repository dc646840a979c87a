"""Headrace as a target: a Redis with the settings of our compose file, one gateway, one worker or several."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.targets.base import TargetRequest
from bench.targets.ready import wait_for_models
from tests.broker import Broker
from tests.system import SECRET, Gateway, Process

#: Variables that would change the behaviour of Headrace.
_NOT_INHERITED: Final = ("HEADRACE_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")
_SEVERAL_WORKERS: Final = 4


class Headrace:
    """Headrace as a target. ``extra``: more environment for gateway and worker, to try settings."""

    name = "headrace"
    end = b"event: done"
    workers = 1

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        self._extra = extra or {}
        self._parts: list[Process] = []

    @staticmethod
    def installed() -> bool:
        return True

    @property
    def port(self) -> int:
        return self._gateway.port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        workers = [part.pid for part in self._parts if part is not self._gateway]
        return {"gateway": [self._gateway.pid], "worker": workers, "redis": [self._redis_pid]}

    @property
    def redis_url(self) -> str:
        return self._broker.url

    async def start(self, provider_url: str, folder: Path) -> None:
        redis_url = await self._start_broker(folder)
        environment = self._environment(provider_url) | {"HEADRACE_REDIS_URL": redis_url}
        self._gateway = Gateway("gateway", environment, folder / "gateway.log")
        workers = (f"worker.{number + 1}" for number in range(self.workers))
        self._parts = [
            self._gateway,
            *(Process(name, ["worker"], environment, folder / f"{name}.log") for name in workers),
        ]
        for part in self._parts:
            part.start()
        await wait_for_models(self.port, lambda: all(part.alive for part in self._parts), self._logs)

    async def stop(self) -> None:
        for part in self._parts:
            part.stop()
        self._parts = []
        self._broker.kill()

    def request(self, model: str, prompt: str) -> TargetRequest:
        return native_request(model, prompt)

    async def _start_broker(self, folder: Path) -> str:
        """Start Redis, and return its URL for gateway and worker."""
        self._broker = Broker(folder / "broker", "--hz", "5")
        await self._broker.start()
        async with self._broker.client() as client:
            self._redis_pid: int = (await client.info("server"))["process_id"]
        return self._broker.url

    def _logs(self) -> str:
        return "; ".join(part.log.read_text()[-300:] for part in self._parts)

    def _environment(self, provider_url: str) -> dict[str, str]:
        return inherited_environment() | {
            "HEADRACE_SECRET": SECRET,
            "HEADRACE_AUTH": "none",  # bench/through_nginx.py puts nginx in front
            "HEADRACE_CONCURRENCY": "10000",
            "HEADRACE_FIRST_TOKEN_TIMEOUT_S": "3600",
            "HEADRACE_BETWEEN_TOKENS_TIMEOUT_S": "3600",  # otherwise idle streams would time out
            "HEADRACE_LOG_LEVEL": "warning",
            "OPENAI_API_KEY": "test-key-123",
            "OPENAI_BASE_URL": provider_url,
            **self._extra,
        }


class HeadraceWorkers(Headrace):
    """Headrace with several workers."""

    name = f"headrace, {_SEVERAL_WORKERS} workers"
    workers = _SEVERAL_WORKERS


def inherited_environment() -> dict[str, str]:
    """Return our environment without settings of Headrace and its providers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}


def native_request(model: str, prompt: str) -> TargetRequest:
    body = {"provider": "openai", "model": model, "messages": [{"role": "user", "content": prompt}]}
    return TargetRequest("/chat/stream", json.dumps(body).encode())
