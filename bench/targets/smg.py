"""Target: smg, a gateway in Rust for servers with OpenAI's API (from PyPI), with one server behind it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench.peers import SMG
from bench.targets.base import TargetRequest
from bench.targets.program import Program
from tests.ports import free_port


class Smg:
    name = "smg (Rust)"
    end = b"data: [DONE]"

    def __init__(self) -> None:
        self._gateway = Program()

    @staticmethod
    def installed() -> bool:
        return SMG.installed

    @property
    def port(self) -> int:
        return self._gateway.port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        return {"app": [self._gateway.pid]}

    async def start(self, provider_url: str, folder: Path) -> None:
        address = ["--host", "127.0.0.1", "--port", str(self._gateway.take_port())]
        metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        server = f"http://{urlsplit(provider_url).netloc}"
        upstream = ["--backend", "openai", "--worker-urls", server, "--disable-health-check"]
        self._gateway.start(
            [SMG.folder / "bin" / "smg", "launch", *address, *metrics, *upstream, "--log-level", "error"],
            {},
            cwd=folder,
            log=folder / "smg.log",
        )
        await self._gateway.wait_until_ready("/readiness")

    async def stop(self) -> None:
        await self._gateway.stop()

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        return TargetRequest("/v1/chat/completions", json.dumps(body).encode(), headers=headers)
