"""Third-party program that listens on a port of its own."""

import asyncio
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx2

from tests.ports import free_port

#: Variables that would change the behaviour of a program.
_NOT_INHERITED: Final = (
    "HEADRACE_",
    "OPENAI_",
    "ANTHROPIC_",
    "OLLAMA_",
    "LITELLM_",
    "REDIS_",
    "DATABASE_",
    "KV_",
    "AIOHTTP_",
    "DEBUG",
)
_TERM_S: Final = 5


class Program:
    """Child process. It can be started again after a stop. Only the program's own process is ever signalled."""

    def __init__(self) -> None:
        self.port = 0
        self._log = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_end(self) -> str:
        """End of the program's output."""
        return self._log.read_text(errors="replace")[-2000:]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def take_port(self) -> int:
        """Choose a port for the command. To be called before each start."""
        self.port = free_port()
        return self.port

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str], *, cwd: Path, log: Path) -> None:
        self._log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env={**inherited, "NO_PROXY": "127.0.0.1", **environment},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    async def wait_until_ready(self, path: str, timeout_s: float = 30) -> None:
        """Wait until ``GET path`` returns 200. Raises with the end of the log on a timeout."""
        deadline = time.monotonic() + timeout_s
        async with httpx2.AsyncClient(trust_env=False) as http:
            while self.alive and time.monotonic() < deadline:
                try:
                    if (await http.get(f"http://127.0.0.1:{self.port}{path}")).status_code == 200:
                        return
                except httpx2.HTTPError:
                    pass
                await asyncio.sleep(0.05)
        raise RuntimeError(f"did not start: {self.log_end}")

    async def stop(self, timeout_s: float = _TERM_S) -> None:
        """Terminate the process, and kill it after the timeout."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.to_thread(self._process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._process = None
