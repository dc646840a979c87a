"""The directory of one ``headrace up``: its lock and its secret. The broker's files live there too."""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRET_BYTES = 32
#: After a kill the last holder is still writing out its file.
WAIT_FOR_THE_DYING_S = 5.0


class DataDirError(Exception):
    """The directory cannot be used; the message says which and why."""


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """What the system refuses within is the directory's fault."""
    try:
        yield
    except OSError as error:
        raise DataDirError(f"cannot use {path} as data directory: {error.strerror}") from error


def prepare(path: Path) -> Path:
    """The absolute path of the directory, made if need be, closed to other users."""
    with _usable(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.resolve(strict=True)


def note_broker(data_dir: Path, url: str) -> None:
    """For the other commands, which have to find the broker of a running ``headrace up``."""
    with _usable(data_dir):
        (data_dir / "broker-url").write_text(url)


def broker_url(data_dir: Path) -> str | None:
    """None where there was no ``headrace up``."""
    with contextlib.suppress(OSError):
        return (data_dir / "broker-url").read_text()
    return None


def empty_folder(data_dir: Path, name: str) -> Path:
    """Of this name, whatever was in it before."""
    folder = data_dir / name
    shutil.rmtree(folder, ignore_errors=True)
    with _usable(data_dir):
        folder.mkdir(mode=0o700)
    return folder


@contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """Holds the directory for this process and for every child that inherits the descriptor it yields."""
    with _usable(data_dir):
        lock = (data_dir / "lock").open("a+b", buffering=0)
    with lock:
        _acquire(lock.fileno(), data_dir)
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), str(os.getpid()).encode())
        yield lock.fileno()


def _acquire(lock: int, data_dir: Path) -> None:
    deadline = time.monotonic() + WAIT_FOR_THE_DYING_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace")
            if _is_alive(holder):
                raise DataDirError(f"{data_dir} is in use by another headrace up (pid {holder})") from None
            if time.monotonic() > deadline:
                raise DataDirError(
                    f"{data_dir} is in use by what a killed headrace up (pid {holder or 'unknown'}) left behind"
                ) from None
        time.sleep(0.05)


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def secret(data_dir: Path) -> str:
    """The secret that signs tickets: made once, then always the same, readable by the owner only."""
    path = data_dir / "secret"
    with _usable(data_dir):
        try:
            return _read_secret(path)
        except FileNotFoundError:
            _create_secret(path)
            return _read_secret(path)


def _read_secret(path: Path) -> str:
    found = path.read_text(encoding="ascii", errors="replace").strip()
    if len(found) < SECRET_BYTES:
        raise DataDirError(f"{path} does not hold a secret; delete it and a new one is made")
    return found


def _create_secret(path: Path) -> None:
    """Whole or not at all, and never over another: of two processes, both read what the first one wrote."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # mode 0600, O_EXCL
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink()
