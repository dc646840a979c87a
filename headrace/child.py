"""One child process: its start, its output line by line, and its restart after every death."""

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
from shared.exit_codes import CONFIGURATION_ERROR

DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
#: A child that lived this long is healthy: its next restart has the shortest delay again.
HEALTHY_AFTER_S = 10.0
LONGEST_LINE = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """Command of a child.

    ``argv[0]`` is an absolute path. ``if_orphaned`` is the signal that the child gets if the supervisor is killed.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    pass_fds: tuple[int, ...] = ()
    if_orphaned: signal.Signals = signal.SIGKILL


class Child:
    """A child that is restarted until it is asked to stop, or ends with a configuration error. ``is_misconfigured``:
    it did."""

    def __init__(self, spec: ChildSpec, console: Console) -> None:
        self.name = spec.name
        self.is_misconfigured = False
        self._spec = spec
        self._console = console
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._final_signal: signal.Signals | None = None
        console.add_name(spec.name)

    async def run(self) -> None:
        """Keep the child running until :meth:`terminate` or :meth:`kill`; return when it has ended."""
        delay = FIRST_DELAY_S
        while not self._stopping.is_set():
            begun = time.monotonic()
            ending = await self._run_once()
            if self._stopping.is_set():
                return
            if self.is_misconfigured:
                self._console.note(f"{self.name} {ending}: its configuration is wrong; not restarting it")
                return
            if time.monotonic() - begun >= HEALTHY_AFTER_S:
                delay = FIRST_DELAY_S
            self._console.note(f"{self.name} {ending}; restarting in {delay:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, LONGEST_DELAY_S)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the child runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the child to stop, and do not restart it."""
        self._stop(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the child with all its children, and do not restart it."""
        self._stop(signal.SIGKILL)

    async def _run_once(self) -> str:
        """Run the process once. Return a description of its end."""
        try:
            self._process = await self._start()
        except OSError as error:
            return f"did not start: {error}"
        self._console.note(f"{self.name} has pid {self._process.pid}")
        self._send_final_signal()  # it may have been asked to stop during its start
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        await self._forward(self._process.stdout)
        code = await self._process.wait()
        self.is_misconfigured = code == CONFIGURATION_ERROR
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def _start(self) -> asyncio.subprocess.Process:
        wrapper = (sys.executable, "-I", "-S", str(DIE_WITH_PARENT), str(os.getpid()))
        return await asyncio.create_subprocess_exec(
            *wrapper,
            str(int(self._spec.if_orphaned)),
            *self._spec.argv,
            env=self._spec.env,
            pass_fds=self._spec.pass_fds,
            umask=0o077,  # the broker writes answers, perhaps into a directory open to other users
            start_new_session=True,  # Ctrl-C must reach only the supervisor, which stops children in order
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def _forward(self, output: asyncio.StreamReader) -> None:
        rest = b""
        while piece := await output.read(LONGEST_LINE):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._console.line(self.name, line.decode(errors="replace"))
        if rest:
            self._console.line(self.name, rest.decode(errors="replace"))

    def _stop(self, final_signal: signal.Signals) -> None:
        self._final_signal = final_signal
        self._stopping.set()
        self._send_final_signal()

    def _send_final_signal(self) -> None:
        if self._final_signal and self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, self._final_signal)
