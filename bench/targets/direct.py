"""Target without a system in between: the load client talks to the provider."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from bench.targets.base import TargetRequest


class Direct:
    name = "direct"
    end = b"data: [DONE]"

    def __init__(self) -> None:
        self._port = 0

    @staticmethod
    def installed() -> bool:
        return True

    @property
    def port(self) -> int:
        return self._port

    @property
    def processes(self) -> Mapping[str, Sequence[int]]:
        return {}

    async def start(self, provider_url: str, folder: Path) -> None:
        self._port = urlsplit(provider_url).port or 80

    async def stop(self) -> None:
        pass

    def request(self, model: str, prompt: str) -> TargetRequest:
        messages = [{"role": "user", "content": prompt}]
        body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        return TargetRequest("/v1/chat/completions", json.dumps(body).encode())
