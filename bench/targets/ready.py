"""Wait for a Headrace that can answer: its gateway offers the models of a worker."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import httpx2

#: On a loaded machine the import of the worker alone may take most of a minute.
_BOOT_S: Final = 100


async def wait_for_models(port: int, alive: Callable[[], bool], logs: Callable[[], str]) -> None:
    """Wait until the gateway offers models of provider openai. Raises with the ends of the logs."""
    begun = time.monotonic()
    async with httpx2.AsyncClient(trust_env=False) as http:
        while alive():
            if time.monotonic() - begun > _BOOT_S:
                raise RuntimeError(f"offered no models within {_BOOT_S} s: {logs()}")
            try:
                answer = await http.get(f"http://127.0.0.1:{port}/v1/models")
                if any(model["owned_by"] == "openai" for model in answer.json()["data"]):
                    return
            except (httpx2.HTTPError, ValueError, KeyError):
                pass
            await asyncio.sleep(0.05)
    raise RuntimeError(f"a process ended during its start: {logs()}")
