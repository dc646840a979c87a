"""Target: FastAPI and sse-starlette in one process, ``in_process_app.py``."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.targets.base import TargetRequest
from bench.targets.program import Program

_REPOSITORY: Final = Path(__file__).parents[2]


class InProcess:
    name = "in-process app"
    end = b"data: [DONE]"

    def __init__(self) -> None:
        self._app = Program()

    @staticmethod
    def installed() -> bool:
        return True

    @property
    def port(self) -> int:
        return self._app.port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        return {"app": [self._app.pid]}

    async def start(self, provider_url: str, folder: Path) -> None:
        server = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        address = ["--host", "127.0.0.1", "--port", str(self._app.take_port())]
        self._app.start(
            [sys.executable, "-m", "uvicorn", "bench.targets.in_process_app:app", *server, *address],
            {"OPENAI_BASE_URL": provider_url, "OPENAI_API_KEY": "none"},
            cwd=_REPOSITORY,
            log=folder / "app.log",
        )
        await self._app.wait_until_ready("/healthz")

    async def stop(self) -> None:
        await self._app.stop()

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = json.dumps({"model": model, "prompt": prompt})
        return TargetRequest("/chat", body.encode(), headers={"Content-Type": "application/json"})
