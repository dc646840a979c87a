"""OpenAI's own SDK as a client of a gateway."""

from typing import Any

from openai import AsyncOpenAI

from tests.system import System


def openai_client(system: System, *, gateway: int = 0, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{system.gateways[gateway].url}/v1", api_key="none", **{"max_retries": 0, **options})
