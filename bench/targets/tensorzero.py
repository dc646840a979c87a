"""Target: TensorZero's gateway in Rust, as its Python package embeds it: without database and observability."""

import asyncio
import json
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.peers import TENSORZERO
from bench.targets.base import TargetRequest
from bench.targets.program_target import ProgramTarget

_CONFIG: Final = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true

[models.any]
routing = ["fake"]

[models.any.providers.fake]
type = "openai"
model_name = "any"
api_base = "{provider_url}"
"""
_BOOT_S: Final = 60


class TensorZero(ProgramTarget):
    name = "TensorZero (Rust)"
    end = b"data: [DONE]"

    @staticmethod
    def installed() -> bool:
        return TENSORZERO.installed

    async def start(self, provider_url: str, folder: Path) -> None:
        config, address = folder / "tensorzero.toml", folder / "address"
        config.write_text(_CONFIG.format(provider_url=provider_url))
        self.program.start(
            [TENSORZERO.folder / "bin" / "python", TENSORZERO.source / "serve.py", config, address],
            {"OPENAI_API_KEY": "none"},
            cwd=folder,
            log=folder / "tensorzero.log",
        )
        # It chooses its port by itself.
        deadline = time.monotonic() + _BOOT_S
        while not address.exists():
            if not self.program.alive or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {self.program.log_end}")
            await asyncio.sleep(0.05)
        self.program.port = urlsplit(address.read_text()).port or 80

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = {
            "model": "tensorzero::model_name::any",
            "messages": [{"role": "user", "content": prompt}],
            "stream": True,
            # A model must be in the file; the pace is in its name.
            "tensorzero::extra_body": [{"pointer": "/model", "value": model}],
        }
        return TargetRequest("/openai/v1/chat/completions", json.dumps(body).encode())
