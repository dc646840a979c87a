"""A service manager that starts commands of units and hears their notifications, as systemd does with Type=notify."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.cli import environment
from tests.system import REPOSITORY

UNITS: Final = REPOSITORY / "deploy" / "systemd"
#: Where the units expect the program.
INSTALLED: Final = "/opt/headrace/bin/headrace"


class Unit:
    """Lines of a unit, with ``%i`` replaced."""

    def __init__(self, name: str, instance: str = "") -> None:
        self._lines = (UNITS / name).read_text().replace("%i", instance).splitlines()

    def values(self, key: str) -> list[str]:
        return [line.partition("=")[2] for line in self._lines if line.startswith(f"{key}=")]

    def value(self, key: str) -> str:
        (value,) = self.values(key)
        return value

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.values("Environment"))


class Service:
    """One running command. ``states``: all that it has sent so far."""

    def __init__(self, unit: Unit, folder: Path) -> None:
        self.unit = unit
        self.states: list[str] = []
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(folder / "notify"))
        self._process: asyncio.subprocess.Process | None = None
        self._heard = asyncio.Event()

    async def start(self, replaced: Mapping[str, str], settings: Mapping[str, str]) -> None:
        """Run the unit's command with words replaced, and with ``settings`` as its environment files."""
        assert self.unit.value("Type") == "notify"
        command = self.unit.value("ExecStart")
        for old, new in {INSTALLED: f"{sys.executable} -m headrace", **replaced}.items():
            command = command.replace(old, new)
        asyncio.get_running_loop().add_reader(self._socket, self._hear)
        manager = {"NOTIFY_SOCKET": str(self._folder / "notify"), "WATCHDOG_USEC": "1500000"}
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command.split(),
                env={**environment(**self.unit.environment), **settings, **manager, "PYTHONPATH": str(REPOSITORY)},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    async def heard(self, condition: Callable[[list[str]], bool], within_s: float = 100) -> None:
        """Wait until the states fulfil ``condition``."""
        async with asyncio.timeout(within_s):
            while not condition(self.states):
                assert self._running.returncode is None, self.log
                self._heard.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._heard.wait(), 0.5)

    async def has_sent(self, state: str) -> None:
        await self.heard(lambda states: state in states)

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code, which must come within the time that the unit gives."""
        self._running.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self._running.wait(), float(self.unit.value("TimeoutStopSec")))
        self._hear()
        return code

    def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()[-3000:]

    def descendants(self) -> list[int]:
        """Return the ids of all processes below the main one."""
        found, waiting = list[int](), [self._running.pid]
        while waiting:
            pid = waiting.pop()
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except (FileNotFoundError, ProcessLookupError):  # it has ended
                continue
            waiting += map(int, children)
            found += map(int, children)
        return found

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.states += self._socket.recv(4096).decode().split("\n")
                self._heard.set()


def environment_of(pid: int) -> set[str]:
    """Return the names of the variables that a process was started with."""
    return {entry.partition("=")[0] for entry in os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")}
