"""Target: FastAPI and sse-starlette in one process, ``in_process_app.py``."""

import json
import sys
from pathlib import Path
from typing import Final

from bench.targets.base import TargetRequest
from bench.targets.program_target import ProgramTarget

_REPOSITORY: Final = Path(__file__).parents[2]


class InProcess(ProgramTarget):
    name = "in-process app"
    end = b"data: [DONE]"

    @staticmethod
    def installed() -> bool:
        return True

    async def start(self, provider_url: str, folder: Path) -> None:
        server = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        address = ["--host", "127.0.0.1", "--port", str(self.program.take_port())]
        self.program.start(
            [sys.executable, "-m", "uvicorn", "bench.targets.in_process_app:app", *server, *address],
            {"OPENAI_BASE_URL": provider_url, "OPENAI_API_KEY": "none"},
            cwd=_REPOSITORY,
            log=folder / "app.log",
        )
        await self.program.wait_until_ready("/healthz")

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = json.dumps({"model": model, "prompt": prompt})
        return TargetRequest("/chat", body.encode(), headers={"Content-Type": "application/json"})
