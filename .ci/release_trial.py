"""Tries the package of the server as its users get it: installed by pipx, away from the source tree.

The trial runs ``headrace up`` with the provider demo, and reads a streamed answer and every file of the chat page.
"""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

_BOOT_S = 120
_REQUEST = b'{"provider": "demo", "model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'


class TrialError(Exception):
    """The package does not work; the message has the reason."""


def try_server(wheel: Path, pipx: Path, version: str) -> None:
    """Install the wheel by pipx, and use it. Raises :class:`TrialError`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HEADRACE_", "PYTHON"))}
        environment |= {
            "PIPX_HOME": f"{folder}/pipx",
            "PIPX_BIN_DIR": f"{folder}/bin",
            "PIPX_MAN_DIR": f"{folder}/man",
        }
        _run(pipx, "install", wheel, cwd=folder, environment=environment)
        headrace = folder / "bin" / "headrace"
        if version not in (said := _run(headrace, "--version", cwd=folder, environment=environment)):
            raise TrialError(f"{wheel.name}: headrace --version prints {said.strip()!r}, not {version}")
        _use(headrace, folder, environment)


def _use(headrace: Path, folder: Path, environment: dict[str, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "up.log"
    with log.open("wb") as output:
        command = (headrace, "up", "--port", str(port), "--data-dir", folder / "data")
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        problem = _look(f"http://127.0.0.1:{port}", process)
    except OSError as error:
        problem = str(error)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    if problem:
        raise TrialError(f"headrace up: {problem}\n{log.read_text()[-2000:]}")


def _look(url: str, process: subprocess.Popen[bytes]) -> str:
    """Read the page, its files and an answer, and return a problem; empty if there is none."""
    files = re.findall(r'(?:src|href)="(/[^"#]*)"', _page(url, process))
    for path in files:
        _read(f"{url}{path}")
    answer = _read(urllib.request.Request(f"{url}/chat/stream", _REQUEST, {"Content-Type": "application/json"}))
    has_ended = "event: token" in answer and "event: done" in answer and "event: error" not in answer
    return "" if files and has_ended else f"{len(files)} files of the page; answer: {answer[-500:]!r}"


def _page(url: str, process: subprocess.Popen[bytes]) -> str:
    """Wait until the gateway is ready, and return the page."""
    deadline = time.monotonic() + _BOOT_S
    while True:
        try:
            _read(f"{url}/readyz")
            return _read(f"{url}/")
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _read(request: str | urllib.request.Request) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return str(response.read().decode())


def _run(*command: str | Path, cwd: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrialError(f"{Path(command[0]).name} {command[1]}: failed\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
