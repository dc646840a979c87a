"""Target: LiteLLM's proxy in the configuration that its docs recommend for production: one Uvicorn worker, a master
key, no database, no logging.

https://docs.litellm.ai/docs/proxy/prod and …/server_tuning: one worker process for each instance, and more instances
rather than more workers. There is one instance here, because every other target has one process for its requests.
"""

import json
from pathlib import Path
from typing import Final

from bench.peers import LITELLM
from bench.targets.base import TargetRequest
from bench.targets.program_target import ProgramTarget

_KEY: Final = "sk-for-the-bench-only"
#: More than the streams of any shape.
_UPSTREAM_CONNECTIONS: Final = "20000"
#: Most of this is the import.
_BOOT_S: Final = 120


class LiteLLM(ProgramTarget):
    name = "LiteLLM"
    end = b"[DONE]"

    @staticmethod
    def installed() -> bool:
        return LITELLM.installed

    async def start(self, provider_url: str, folder: Path) -> None:
        config = folder / "config.yaml"
        config.write_text(json.dumps(_config(provider_url)))  # JSON is YAML
        address = ["--host", "127.0.0.1", "--port", str(self.program.take_port()), "--num_workers", "1"]
        self.program.start(
            [LITELLM.folder / "bin" / "python", LITELLM.folder / "bin" / "litellm", "--config", config, *address],
            {
                "LITELLM_MODE": "PRODUCTION",
                "LITELLM_LOG": "ERROR",
                # Otherwise it fetches prices from the internet.
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                # By default the 501st stream waits for another to end. 0 would not lift that: it means aiohttp's 100.
                "AIOHTTP_CONNECTOR_LIMIT": _UPSTREAM_CONNECTIONS,
                "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": _UPSTREAM_CONNECTIONS,
            },
            cwd=folder,
            log=folder / "proxy.log",
        )
        await self.program.wait_until_ready("/health/readiness", _BOOT_S)

    def request(self, model: str, prompt: str) -> TargetRequest:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {_KEY}"}
        return TargetRequest("/v1/chat/completions", json.dumps(body).encode(), headers=headers)


def _config(provider_url: str) -> dict[str, object]:
    route = {"model": "openai/*", "api_base": provider_url, "api_key": "none"}
    return {
        "model_list": [{"model_name": "*", "litellm_params": route}],
        "litellm_settings": {"set_verbose": False, "callbacks": [], "num_retries": 0, "request_timeout": 3600},
        "general_settings": {"master_key": _KEY, "disable_spend_logs": True, "disable_error_logs": True},
    }
