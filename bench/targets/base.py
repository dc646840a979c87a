"""What is measured: something between the load client and the fake provider, or nothing at all.

Every target is asked for an answer by one HTTP POST and streams it as the response's body. The fake provider's
tokens stand in that body as they were sent, whatever wraps them, so one client can check all targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ask:
    """One HTTP request. ``body`` is JSON; ``Content-Length`` and ``Host`` are the client's to add."""

    path: str
    body: bytes
    method: str = "POST"
    headers: Mapping[str, str] | None = None


class Target(Protocol):
    """``name`` as the report prints it. ``end``: bytes that only a whole answer ends with."""

    name: str
    end: bytes

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        ...

    @property
    def processes(self) -> Mapping[str, int]:
        """Role → pid of what is measured: 'gateway', 'worker', 'redis', 'app', …"""
        ...

    async def start(self, provider_url: str, folder: Path) -> None:
        """``provider_url``: an OpenAI base URL ending in ``/v1``. Returns when the target answers. ``folder`` is
        empty and its own."""
        ...

    async def stop(self) -> None: ...

    def ask(self, model: str, prompt: str) -> Ask: ...
