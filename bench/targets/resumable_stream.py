"""Target: Vercel's resumable-stream on Node, with a Redis, ``resumable_stream_app/``."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.peers import RESUMABLE_STREAM
from bench.targets.base import TargetRequest
from bench.targets.program import Program
from tests.broker import Broker


class ResumableStream:
    name = "resumable-stream"
    end = b"data: [DONE]"

    def __init__(self) -> None:
        self._app = Program()
        self._broker: Broker | None = None
        self._redis_pid = 0

    @staticmethod
    def installed() -> bool:
        return RESUMABLE_STREAM.installed and shutil.which("node") is not None

    @property
    def port(self) -> int:
        return self._app.port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        return {"app": [self._app.pid], "redis": [self._redis_pid]}

    async def start(self, provider_url: str, folder: Path) -> None:
        self._broker = Broker(folder / "broker")
        await self._broker.start()
        async with self._broker.client() as client:
            self._redis_pid = (await client.info("server"))["process_id"]
        # Node looks for node_modules beside the file.
        server = shutil.copy(RESUMABLE_STREAM.source / "server.mjs", RESUMABLE_STREAM.folder)
        environment = {
            "NODE_ENV": "production",
            "PORT": str(self._app.take_port()),
            "REDIS_URL": self._broker.url,
            "OPENAI_BASE_URL": provider_url,
            "OPENAI_API_KEY": "none",
        }
        self._app.start(["node", server], environment, cwd=RESUMABLE_STREAM.folder, log=folder / "app.log")
        await self._app.wait_until_ready("/healthz")

    async def stop(self) -> None:
        await self._app.stop()
        if self._broker is not None:
            self._broker.kill()

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = json.dumps({"model": model, "prompt": prompt})
        return TargetRequest("/chat", body.encode(), headers={"Content-Type": "application/json"})
