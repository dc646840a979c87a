"""Keeps a set of children alive and stops them in order.

The first SIGINT, SIGTERM or SIGHUP cancels the task that entered the supervisor; on the way out everything is
stopped: first all but the broker (SIGTERM, SIGKILL after ``stop_within_s``), then the broker in the same way, so
that nothing writes to it any more and its file is whole. The second signal kills everything at once.
"""

import asyncio
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from headrace.child import Child, ChildSpec
from headrace.console import Console

STOP_WITHIN_S = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """``async with Supervisor(console) as supervisor``: what was started inside is gone after the block."""

    def __init__(self, console: Console, *, stop_within_s: float = STOP_WITHIN_S) -> None:
        self.killed = False
        self._console = console
        self._stop_within_s = stop_within_s
        self._first_out: dict[Child, asyncio.Task[None]] = {}
        self._last_out: dict[Child, asyncio.Task[None]] = {}
        self._owner: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = None  # from here on a signal means: at once
        if self._first_out or self._last_out:
            self._console.note("stopping (Ctrl-C again kills)")
        await self._stop(self._first_out)
        await self._stop(self._last_out)
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def start(self, spec: ChildSpec) -> None:
        self._start(spec, self._first_out)

    def start_broker(self, spec: ChildSpec) -> None:
        """Like :meth:`start`, but it is stopped after everything else is gone."""
        self._start(spec, self._last_out)

    def _start(self, spec: ChildSpec, group: dict[Child, asyncio.Task[None]]) -> None:
        child = Child(spec, self._console)
        group[child] = asyncio.create_task(child.run(), name=spec.name)

    def _on_signal(self) -> None:
        if self._owner is not None:
            owner, self._owner = self._owner, None
            owner.cancel()
            return
        self.killed = True
        self._console.note("killing everything")
        for child in (*self._first_out, *self._last_out):
            child.kill()

    async def _stop(self, group: dict[Child, asyncio.Task[None]]) -> None:
        if not group:
            return
        for child in group:
            child.terminate()
        _, late = await asyncio.wait(group.values(), timeout=self._stop_within_s)
        self._kill([child for child, task in group.items() if task in late])
        await asyncio.wait(group.values())

    def _kill(self, children: Sequence[Child]) -> None:
        for child in children:
            self._console.note(f"{child.name} did not stop within {self._stop_within_s:g} s and is killed")
            child.kill()
