"""Data directory of one ``headrace up``: its lock, its secret, and the broker's files."""

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
#: A killed broker may still be writing out its file.
LOCK_TIMEOUT_S = 5.0


class DataDirError(Exception):
    """The directory is unusable; the message has its path and the reason."""


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Convert every OSError into :class:`DataDirError`."""
    try:
        yield
    except OSError as error:
        raise DataDirError(f"data directory {path}: {error.strerror}; choose another with --data-dir") from error


def prepare(path: Path) -> Path:
    """Create the directory if needed, closed to other users. Return its absolute path."""
    with _usable(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.resolve(strict=True)


def note_broker(data_dir: Path, url: str) -> None:
    """Store the broker's URL for other commands, which must find the broker of a running ``headrace up``."""
    with _usable(data_dir):
        (data_dir / "broker-url").write_text(url)


def broker_url(data_dir: Path) -> str | None:
    """Return the URL of the last ``headrace up``, or None if there was none."""
    with contextlib.suppress(OSError):
        return (data_dir / "broker-url").read_text()
    return None


def empty_folder(data_dir: Path, name: str) -> Path:
    """Create a folder, or empty an existing one."""
    folder = data_dir / name
    shutil.rmtree(folder, ignore_errors=True)
    with _usable(data_dir):
        folder.mkdir(mode=0o700)
    return folder


@contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """Lock the directory for this process and for every child that inherits the yielded descriptor."""
    with _usable(data_dir):
        lock = (data_dir / "lock").open("a+b", buffering=0)
    with lock:
        _acquire(lock.fileno(), data_dir)
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), str(os.getpid()).encode())
        yield lock.fileno()


def _acquire(lock: int, data_dir: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace")
            if _is_alive(holder):
                raise DataDirError(
                    f"data directory {data_dir}: in use by another headrace up (pid {holder}); stop it, or choose"
                    " another with --data-dir"
                ) from None
            if time.monotonic() > deadline:
                raise DataDirError(
                    f"data directory {data_dir}: in use by the broker of a killed headrace up (pid"
                    f" {holder or 'unknown'}); stop that broker"
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
    """Return the secret that signs tickets. It is created once and is readable only by its owner."""
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
        raise DataDirError(f"{path}: contains no secret; delete the file, and a new one is created")
    return found


def _create_secret(path: Path) -> None:
    """Create the file atomically, without replacing an existing one: two processes at once get the same secret."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # mode 0600, O_EXCL
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink()
