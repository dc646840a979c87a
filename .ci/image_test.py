"""Builds the image of deploy/Dockerfile, and runs a gateway and a worker from it until ``curl`` has its answer.

Needs root, and from Debian: mmdebstrap, which makes a base image, buildah, which builds without a container engine,
curl and redis-server. The wheels are downloaded here by the locks with hashes, so the build itself needs no network.
Both processes run as the image's unprivileged user, on a read-only root, without capabilities.

Exits with 1 if the image cannot be built or does not work, and with 3 if this machine cannot try it.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_CACHE: Final = _ROOT / ".venv" / "image"
_SUITE: Final = "bookworm"
_PYTHON: Final = "3.11"
_GLIBC: Final = 36  # of that suite: 2.36
_BASE: Final = "localhost/headrace-test-base"
_IMAGE: Final = "localhost/headrace-test"
_BUILDAH: Final = ("buildah", "--storage-driver", "vfs")
_PROGRAMS: Final = ("mmdebstrap", "buildah", "curl", "redis-server", "unshare", "setpriv", "chroot")
_READY_S: Final = 120
_ASK: Final = '{"model": "demo", "messages": [{"role": "user", "content": "hi"}]}'


class ImageError(Exception):
    """The image cannot be built, or does not work; the message has the reason and the remedy."""


class Impossible(Exception):
    """The image cannot be tried on this machine; the message has the reason and the remedy."""


def main() -> int:
    began = time.monotonic()
    try:
        _check_machine()
        with tempfile.TemporaryDirectory(prefix="headrace-image-") as folder:
            config = build(Path(folder))
            run(config, Path(folder))
    except ImageError as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    except Impossible as error:
        print(f"image-test: NOT TRIED: {error}", file=sys.stderr)
        return 3
    finally:
        _remove_images()
    print(f"image-test: the image answers, {time.monotonic() - began:.0f} s")
    return 0


def _remove_images() -> None:
    if shutil.which("buildah"):  # after a failure there may be one of them, or none
        subprocess.run([*_BUILDAH, "rmi", "--force", _IMAGE, _BASE], capture_output=True, check=False)


def _check_machine() -> None:
    if os.geteuid():
        raise Impossible("needs root: buildah builds with chroot here; run sudo make image-test")
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        raise Impossible(f"{', '.join(missing)}: not installed; run .ci/packages")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        raise Impossible("needs the right to mount; run it outside of a container, or in a privileged one")


def build(folder: Path) -> dict[str, Any]:
    """Build the image, and return its configuration."""
    _import_base()
    wheels = _wheels()
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    _call(
        *(*_BUILDAH, "build", "--isolation", "chroot", "--format", "oci", "--pull-never"),
        *("--file", "deploy/Dockerfile", "--build-arg", f"PYTHON_IMAGE={_BASE}", "--tag", _IMAGE),
        *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro", "."),
    )
    found = json.loads(_call(*_BUILDAH, "inspect", "--type", "image", _IMAGE))
    config: dict[str, Any] = found["OCIv1"]["config"]
    return config


def _import_base() -> None:
    """Make the base image, once: the packages come over the network."""
    tar = _CACHE / f"{_SUITE}.tar"
    if not tar.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        part = tar.with_suffix(".part.tar")
        include = "--include=python3,python3-venv,ca-certificates"
        try:
            _call("mmdebstrap", "--quiet", "--variant=minbase", include, _SUITE, str(part))
        except ImageError as error:
            raise Impossible(f"no base image; are Debian's packages reachable? {error}") from None
        part.rename(tar)
    container = _call(*_BUILDAH, "from", "scratch").strip()
    try:
        _call(*_BUILDAH, "add", "--quiet", container, str(tar), "/")
        _call(*_BUILDAH, "commit", "--quiet", container, _BASE)
    finally:
        _call(*_BUILDAH, "rm", container)


def _wheels() -> Path:
    """Download the wheels of the locks for the Python of the base image."""
    folder, text = _CACHE / "wheels", _CACHE / "download.lock"
    machine = os.uname().machine
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
    for lock in ("requirements.lock", "requirements-build.lock"):
        # pip compares these with its own Python; one file more than needed does no harm.
        text.write_text(re.sub(r" ; python_full_version < '[^']+'", "", (_ROOT / lock).read_text()))
        _call(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--dest", str(folder), "--python-version", _PYTHON, "--only-binary", ":all:"),
            *("--no-deps", "--require-hashes", "-r", str(text)),
            *(word for platform in platforms for word in ("--platform", platform)),
        )
    return folder


def run(config: dict[str, Any], folder: Path) -> None:
    """Run a gateway and a worker from the image with a Redis of this machine, and ask for an answer."""
    redis_port, port = _free_port(), _free_port()
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
        root = stack.enter_context(_mounted())
        stack.enter_context(_running(redis, folder / "redis.log"))
        for name, command in (("gateway", gateway), ("worker", ["headrace", "worker"])):
            inside = _inside(root, config["User"], settings, command)
            stack.enter_context(_running(inside, folder / f"{name}.log"))
        try:
            _until_ready(port)
            curl = ("curl", "-sSN", "--fail-with-body", "--max-time", "60")
            url, kind = f"http://127.0.0.1:{port}/chat/stream", "Content-Type: application/json"
            _check_answer(_call(*curl, url, "-H", kind, "-d", _ASK))
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
def _mounted() -> Iterator[str]:
    container = _call(*_BUILDAH, "from", "--pull-never", _IMAGE).strip()
    try:
        yield _call(*_BUILDAH, "mount", container).strip()
    finally:
        _call(*_BUILDAH, "rm", container)


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
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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


def _call(*command: str) -> str:
    """Run a command in the checkout and return its output. Raises :class:`ImageError`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
    if done.returncode:
        detail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ImageError(f"{' '.join(command[:4])} … failed:\n{detail}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
