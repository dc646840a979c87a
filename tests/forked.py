"""Processes of Headrace that are forked from one which has imported their modules (tests/fork_server.py)."""

import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from tests.previous_release import SOURCE_TREE, path_of

#: Modules that each kind of process imports before it is ready.
_MODULES: Final = {
    "gateway": ("headrace.cli", "gateway.main", "uvloop"),
    "worker": (
        "headrace.cli",
        "workers.main",
        *(f"workers.providers.{name}" for name in ("demo", "openai", "anthropic", "ollama")),
    ),
}
#: Beginnings of variables that the interpreter, a library or an import reads, as aiohttp those of OpenSSL. If these
#: differ from ours, a process is started by itself.
_READ_AT_IMPORT: Final = (
    "PYTHON",
    "LD_",
    "LC_",
    "LANG",
    "TZ",
    "MALLOC_",
    "PROMETHEUS_",
    "OTEL_",
    "OPENAI_LOG",
    "ANTHROPIC_LOG",
    "SSL_",
    "AIOHTTP_",
)


def can_fork(arguments: list[str], environment: Mapping[str, str]) -> bool:
    """Return whether such a process behaves as one that is started by itself."""
    if sys.platform != "linux" or arguments[0] not in _MODULES:
        return False
    differences = {name for name, _ in set(environment.items()) ^ set(os.environ.items())}
    return not any(name.startswith(_READ_AT_IMPORT) for name in differences)


class Forked:
    """A process, with the methods of :class:`subprocess.Popen` that :class:`tests.system.Process` needs."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], directory: Path, log: Path) -> None:
        request = {
            "arguments": arguments,
            "environment": dict(environment),
            "directory": str(directory),
            "log": str(log.absolute()),
        }
        log.touch()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server(arguments[0]))
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._replies = self._connection.makefile("rb")
        self.pid = int(self._replies.readline())
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        with self._lock:
            if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
                self.returncode = int(self._replies.readline() or -signal.SIGKILL)  # they end with their server
                self._replies.close()
                self._connection.close()
            return self.returncode

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        while (code := self.poll()) is None:
            with contextlib.suppress(ValueError):  # another thread has seen the end, and closed the connection
                select.select([self._connection], [], [], 0.1)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _server(kind: str) -> str:
    """Start the server for a kind of process, and return the path of its socket. It ends with this process."""
    folder = tempfile.mkdtemp(prefix="headrace-fork-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/{kind}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno()), *_MODULES[kind]],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            cwd=SOURCE_TREE,
            env=os.environ | path_of(SOURCE_TREE),
        )
    atexit.register(server.kill)
    return path
