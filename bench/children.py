"""Child processes of the benchmark: the fake provider, and a load client for each job."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from bench.client import Job

REPOSITORY = Path(__file__).parent.parent
#: A line of the client may hold the first-token times of thousands of streams.
_LINE_BYTES = 64 * 1024 * 1024


class ProviderProcess:
    """Fake provider as a child process. ``url``: its OpenAI base URL."""

    def __init__(self) -> None:
        self.url = ""
        self._root = ""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        self._process = await _python("bench.provider")
        assert self._process.stdout is not None
        port = int(await self._process.stdout.readline())
        self._root = f"http://127.0.0.1:{port}"
        self.url = f"{self._root}/v1"

    async def aborted(self) -> dict[str, Any]:
        """Return ``open``, the number of running answers, and ``aborted_us``, the times at which clients closed
        others since the last call."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            reply: dict[str, Any] = (await http.get(f"{self._root}/aborted")).json()
            return reply

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class ClientFailed(Exception):
    """The load client itself failed."""


async def run_client(
    job: Job, on_first: Callable[[], Awaitable[None]] | None = None, module: str = "bench.client"
) -> dict[str, Any]:
    """Run a job and return its result, see ``bench/tally.py``. ``on_first`` runs when all streams have their first
    token."""
    process = await _python(module)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(job) + b"\n")
        await process.stdin.drain()
        async for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message["event"] == "result":
                await process.wait()  # by itself; a kill could reap it behind asyncio's back
                return message
            if on_first is not None:
                await on_first()
        raise ClientFailed(f"exit status {await process.wait()}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _python(module: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, stdin=pipe, stdout=pipe, cwd=REPOSITORY, limit=_LINE_BYTES
    )
