"""SIGHUP has two meanings: a request to reload, and a terminal that has closed."""

import asyncio
import os
import signal
from collections.abc import Callable


class Hangup:
    """Handling of SIGHUP in one process. Until :meth:`reload_with`, a signal is only remembered: it must not kill a
    process that starts."""

    def __init__(self) -> None:
        self._is_under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_terminal = _has_terminal()
        self._came_early = False
        signal.signal(signal.SIGHUP, self._remember)

    def reload_with(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` on SIGHUP. If the terminal of this process has closed, it stops as after SIGTERM instead;
        under nohup it continues. Requires a running event loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._handle, reload)
        if self._came_early:
            self._handle(reload)

    def _remember(self, *_: object) -> None:
        self._handle(self._note_early)

    def _note_early(self) -> None:
        self._came_early = True

    def _handle(self, reload: Callable[[], None]) -> None:
        if not self._had_terminal or _has_terminal():
            reload()
        elif not self._is_under_nohup:
            signal.raise_signal(signal.SIGTERM)


def _has_terminal() -> bool:
    """Return True if the process has a controlling terminal. A closed one is no longer there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
