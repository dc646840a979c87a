"""Keeps a set of children running and stops them in order.

The first SIGINT or SIGTERM cancels the task that entered the supervisor, as does a child that ends with a
configuration error: a restart would not help it. Its exit stops everything: first
all but the broker (SIGTERM, SIGKILL after ``stop_within_s``), then the broker in the same way, so that its file is
complete. The second signal kills everything at once. SIGHUP goes to all children but the broker, which read their
configuration again; if it came because the terminal closed, it stops everything too.
"""

import asyncio
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from headrace.child import Child, ChildSpec
from headrace.console import Console
from shared.hangup import Hangup
from shared.service_manager import STOPPING, notify

STOP_WITHIN_S = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Supervisor:
    """Context manager that stops its children at the end of its block."""

    def __init__(self, console: Console, *, stop_within_s: float = STOP_WITHIN_S) -> None:
        self.killed = False
        self.misconfigured = False
        self._console = console
        self._stop_within_s = stop_within_s
        self._first_to_stop: dict[Child, asyncio.Task[None]] = {}
        self._last_to_stop: dict[Child, asyncio.Task[None]] = {}
        self._hangup = Hangup()
        self._owner: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        self._hangup.reload_with(self._reload)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner = None  # from here on, a signal kills
        notify(STOPPING)
        if self._first_to_stop or self._last_to_stop:
            self._console.note("stopping (Ctrl-C again kills)")
        await self._stop(self._first_to_stop)
        await self._stop(self._last_to_stop)
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)

    def start(self, spec: ChildSpec) -> None:
        """Start a child."""
        self._start(spec, self._first_to_stop)

    def start_broker(self, spec: ChildSpec) -> None:
        """Start a child that is stopped after all others have ended."""
        self._start(spec, self._last_to_stop)

    def _start(self, spec: ChildSpec, group: dict[Child, asyncio.Task[None]]) -> None:
        child = Child(spec, self._console)
        group[child] = asyncio.create_task(self._run(child), name=spec.name)

    async def _run(self, child: Child) -> None:
        await child.run()
        if child.is_misconfigured and self._owner is not None:
            self.misconfigured = True
            owner, self._owner = self._owner, None
            owner.cancel()

    def _reload(self) -> None:
        self._console.note("reloading the configuration")
        for child in self._first_to_stop:
            child.send(signal.SIGHUP)

    def _on_signal(self) -> None:
        if self._owner is not None:
            owner, self._owner = self._owner, None
            owner.cancel()
            return
        self.killed = True
        self._console.note("killing everything")
        for child in (*self._first_to_stop, *self._last_to_stop):
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
            self._console.note(f"{child.name} did not stop within {self._stop_within_s:g} s; killing it")
            child.kill()
