"""Interface of a target: a system between the load client and the fake provider, or none at all.

A target receives one HTTP POST for an answer and streams it as the response's body. The body contains the fake
provider's tokens as they were sent, in any wrapping, so one client can check all targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """One HTTP request. ``body`` is JSON; the client adds ``Content-Length`` and ``Host``."""

    path: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] | None = None


class Target(Protocol):
    """Target of a measurement. ``name`` appears in the report. ``end``: bytes at the end of complete answers only."""

    name: str
    end: bytes

    @property
    def port(self) -> int:
        """Port on 127.0.0.1."""
        ...

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        """Measured processes by role: gateway, worker, redis, app and so on, each with its pids."""
        ...

    async def start(self, provider_url: str, folder: Path) -> None:
        """Start the target and wait until it answers. ``provider_url``: an OpenAI base URL ending in ``/v1``.
        ``folder``: an empty folder for this target."""
        ...

    async def stop(self) -> None: ...

    def request(self, model: str, prompt: str) -> TargetRequest: ...
