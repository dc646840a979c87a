"""Target: smg, a gateway in Rust for servers with OpenAI's API (from PyPI), with one server behind it."""

import json
from pathlib import Path
from urllib.parse import urlsplit

from bench.peers import SMG
from bench.targets.base import TargetRequest
from bench.targets.program_target import ProgramTarget
from tests.ports import free_port


class Smg(ProgramTarget):
    name = "smg (Rust)"
    end = b"data: [DONE]"

    @staticmethod
    def installed() -> bool:
        return SMG.installed

    async def start(self, provider_url: str, folder: Path) -> None:
        address = ["--host", "127.0.0.1", "--port", str(self.program.take_port())]
        metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        server = f"http://{urlsplit(provider_url).netloc}"
        upstream = ["--backend", "openai", "--worker-urls", server, "--disable-health-check"]
        self.program.start(
            [SMG.folder / "bin" / "smg", "launch", *address, *metrics, *upstream, "--log-level", "error"],
            {},
            cwd=folder,
            log=folder / "smg.log",
        )
        await self.program.wait_until_ready("/readiness")

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
        headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        return TargetRequest("/v1/chat/completions", json.dumps(body).encode(), headers=headers)
