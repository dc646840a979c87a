"""Headrace as a target: a Redis with the persistence of our compose file, one gateway, one worker."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2

from bench.targets.base import TargetRequest
from tests.broker import Broker
from tests.system import SECRET, Gateway, Process

_BOOT_S = 30


class Headrace:
    """Headrace as a target. ``extra``: more environment for gateway and worker, to try settings."""

    name = "headrace"
    end = b"event: done"

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
    def processes(self) -> Mapping[str, int]:
        return {"gateway": self._gateway.pid, "worker": self._worker.pid, "redis": self._redis_pid}

    @property
    def redis_url(self) -> str:
        return self._broker.url

    async def start(self, provider_url: str, folder: Path) -> None:
        self._broker = Broker(folder / "broker")
        await self._broker.start()
        async with self._broker.client() as client:
            self._redis_pid: int = (await client.info("server"))["process_id"]
        environment = self._environment(provider_url)
        self._gateway = Gateway("gateway", environment, folder / "gateway.log")
        self._worker = Process("worker", ["worker"], environment, folder / "worker.log")
        self._parts = [self._gateway, self._worker]
        for part in self._parts:
            part.start()
        await self._wait_until_ready()

    async def stop(self) -> None:
        for part in self._parts:
            part.stop()
        self._parts = []
        self._broker.kill()

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = {"provider": "openai", "model": model, "messages": [{"role": "user", "content": prompt}]}
        return TargetRequest("/chat/stream", json.dumps(body).encode())

    async def _wait_until_ready(self) -> None:
        """Wait until the gateway offers the worker's provider."""
        deadline = time.monotonic() + _BOOT_S
        async with httpx2.AsyncClient(trust_env=False) as http:
            while time.monotonic() < deadline:
                try:
                    answer = await http.get(f"{self._gateway.url}/v1/models")
                    if any(m["owned_by"] == "openai" for m in answer.json()["data"]):
                        return
                except (httpx2.HTTPError, ValueError, KeyError):
                    pass
                if not all(part.alive for part in self._parts):
                    break
                await asyncio.sleep(0.05)
        raise RuntimeError("did not start: " + "; ".join(part.log.read_text()[-300:] for part in self._parts))

    def _environment(self, provider_url: str) -> dict[str, str]:
        prefixes = ("HEADRACE_", "OPENAI_", "ANTHROPIC_", "OLLAMA_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        return inherited | {
            "HEADRACE_REDIS_URL": self._broker.url,
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
