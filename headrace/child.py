"""One child process: started, heard line by line, and started again whenever it dies."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.console import Console

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
#: Who lived this long is healthy: its next death is answered fast again.
HEALTHY_AFTER_S = 10.0
LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """``argv[0]`` is an absolute path. ``if_orphaned`` is what the child gets when the supervisor is killed."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    if_orphaned: signal.Signals = signal.SIGKILL


class Child:
    def __init__(self, spec: ChildSpec, console: Console) -> None:
        self.name = spec.name
        self._spec = spec
        self._console = console
        self._process: asyncio.subprocess.Process | None = None
        self._leaving = asyncio.Event()
        self._farewell: signal.Signals | None = None
        console.add_name(spec.name)

    async def run(self) -> None:
        """Keep it alive until :meth:`terminate` or :meth:`kill`; return when it is gone."""
        delay = FIRST_DELAY_S
        while not self._leaving.is_set():
            begun = time.monotonic()
            ending = await self._live()
            if self._leaving.is_set():
                return
            if time.monotonic() - begun >= HEALTHY_AFTER_S:
                delay = FIRST_DELAY_S
            self._console.note(f"{self.name} {ending}; starting it again in {delay:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY_S)

    def terminate(self) -> None:
        """Ask it to leave, and do not start it again."""
        self._leave(signal.SIGTERM)

    def kill(self) -> None:
        """End it now with all it started, and do not start it again."""
        self._leave(signal.SIGKILL)

    async def _live(self) -> str:
        """One life of the process. Returns how it ended, in words."""
        try:
            self._process = await self._start()
        except OSError as error:
            return f"could not be started: {error}"
        self._console.note(f"{self.name} has pid {self._process.pid}")
        self._say_farewell()  # where it was asked to leave while it was being started
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        await self._pass_on(self._process.stdout)
        code = await self._process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def _start(self) -> asyncio.subprocess.Process:
        leash = (sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid()), str(int(self._spec.if_orphaned)))
        return await asyncio.create_subprocess_exec(
            *leash,
            *self._spec.argv,
            env=self._spec.env,
            pass_fds=self._spec.pass_fds,
            umask=0o077,  # answers are in what the broker writes, also in a directory that others may enter
            start_new_session=True,  # the terminal's Ctrl-C is for the supervisor, which knows the order
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def _pass_on(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while piece := await output.read(LONGEST_LINE):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._console.line(self.name, line.decode(errors="replace"))
        if rest:
            self._console.line(self.name, rest.decode(errors="replace"))

    def _leave(self, farewell: signal.Signals) -> None:
        self._farewell = farewell
        self._leaving.set()
        self._say_farewell()

    def _say_farewell(self) -> None:
        if self._farewell and self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, self._farewell)
