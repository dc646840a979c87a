"""Target: ``headrace up`` as a user starts it, with the key of a provider and no other setting."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.targets.base import TargetRequest
from bench.targets.headrace import native_request
from bench.targets.program import Program
from bench.targets.ready import wait_for_models

_REPOSITORY: Final = Path(__file__).parents[2]
#: More than the drain of its processes.
_STOP_S: Final = 20


class HeadraceUp:
    """Supervisor with its broker, one gateway and one worker. ``extra``: more environment, to try settings."""

    name = "headrace up, defaults"
    end = b"event: done"

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        self._extra = extra or {}
        self._up = Program()

    @staticmethod
    def installed() -> bool:
        return True

    @property
    def port(self) -> int:
        return self._up.port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        return {"all": [self._up.pid]}

    async def start(self, provider_url: str, folder: Path) -> None:
        self._up.start(
            [
                sys.executable,
                "-m",
                "headrace",
                "up",
                "--port",
                f"{self._up.take_port()}",
                "--data-dir",
                folder / "data",
            ],
            {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": provider_url, **self._extra},
            cwd=_REPOSITORY,
            log=folder / "up.log",
        )
        await wait_for_models(self.port, lambda: self._up.alive, lambda: self._up.log_end)

    async def stop(self) -> None:
        await self._up.stop(_STOP_S)

    def request(self, model: str, prompt: str) -> TargetRequest:
        return native_request(model, prompt)
