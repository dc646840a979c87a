"""Runs a gateway and a worker from an image until ``curl`` has its answer.

Both processes run as the image's unprivileged user, on a read-only root, without capabilities, with a Redis of this
machine.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from image_build import BUILDAH, ImageError, Impossible, call, configuration_of, report

_PROGRAMS: Final = ("mmdebstrap", "buildah", "curl", "redis-server", "unshare", "setpriv", "chroot")
_READY_S: Final = 120
_ASK: Final = '{"model": "demo", "messages": [{"role": "user", "content": "hi"}]}'


def check_machine() -> None:
    """Check that images can be built and tried here. Raises :class:`Impossible`."""
    if os.geteuid():
        raise Impossible("needs root: buildah builds with chroot here; run it with sudo")
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        raise Impossible(f"{', '.join(missing)}: not installed; run .ci/packages")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        raise Impossible("needs the right to mount; run it outside of a container, or in a privileged one")


def try_image(tag: str, folder: Path) -> None:
    """Ask for an answer. ``folder`` is for logs. Raises :class:`ImageError` with the logs if there is none."""
    report("gateway and worker from the image")
    config, redis_port, port = configuration_of(tag), _free_port(), _free_port()
    settings = [
        *config["Env"],
        f"HEADRACE_REDIS_URL=redis://127.0.0.1:{redis_port}/0",
        f"HEADRACE_SECRET={os.urandom(32).hex()}",
        "HEADRACE_AUTH=none",
        "HEADRACE_DEMO_TOKENS_PER_S=500",
    ]
    gateway = [*config["Cmd"], "--port", str(port)]
    redis = ("redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    with ExitStack() as stack:
        root = stack.enter_context(_mounted(tag))
        stack.enter_context(_running(redis, folder / "redis.log"))
        for name, command in (("gateway", gateway), ("worker", ["headrace", "worker"])):
            inside = _inside(root, config["User"], settings, command)
            stack.enter_context(_running(inside, folder / f"{name}.log"))
        try:
            _until_ready(port)
            curl = ("curl", "-sSN", "--fail-with-body", "--max-time", "60")
            url, kind = f"http://127.0.0.1:{port}/chat/stream", "Content-Type: application/json"
            _check_answer(call(*curl, url, "-H", kind, "-d", _ASK))
            _check_rights(root, config["User"], settings)
        except ImageError as error:
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
            raise ImageError(f"{error}\n{logs}") from None


def _check_answer(answer: str) -> None:
    if "event: done" not in answer:
        raise ImageError(f"the answer has no end: {answer[-300:]}")


def _check_rights(root: str, user: str, settings: Sequence[str]) -> None:
    """The user must be unprivileged, and must not be able to change the program."""
    probe = "import os; assert os.getuid() == 10001; open('/app/probe', 'w')"
    tried = subprocess.run(
        _inside(root, user, settings, ["python", "-c", probe]), capture_output=True, text=True, check=False
    )
    if not re.search(r"Read-only file system|Permission denied", tried.stderr):
        raise ImageError(f"a process can write to the image: {tried.stderr or 'no error'}")


@contextmanager
def _mounted(tag: str) -> Iterator[str]:
    container = call(*BUILDAH, "from", "--pull-never", tag).strip()
    try:
        yield call(*BUILDAH, "mount", container).strip()
    finally:
        call(*BUILDAH, "rm", container)


def _inside(root: str, user: str, settings: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return a command that runs ``command`` with the image as a read-only root, in its own mount namespace."""
    uid, gid = user.split(":")
    script = """
        mount --bind "$0" "$0"
        mount -o remount,ro,bind "$0"
        mount -t proc proc "$0/proc"
        mount --rbind /dev "$0/dev"
        mount -t tmpfs tmpfs "$0/tmp"
        exec chroot "$0" "$@"
    """
    drop = ("setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
        *("sh", "-euc", script, root, *drop, "env", "-i", *settings, *command),
    ]


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process with its children. Those that changed their user do not end with their parent."""
    with suppress(ProcessLookupError):
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.1)


def _until_ready(port: int) -> None:
    deadline = time.monotonic() + _READY_S
    url = f"http://127.0.0.1:{port}/readyz"
    while subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=False).returncode:
        if time.monotonic() > deadline:
            raise ImageError(f"the gateway was not ready within {_READY_S} s")
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
