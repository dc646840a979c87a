"""Data directory of one ``headrace up``: its lock, its secret, and the broker's files.

It belongs to the user that runs the command, and is closed to all others. A directory that others own or can enter is
refused: they could read answers, or plant a secret or a broker's address of their own.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from headrace.private_directory import OF_OTHERS, problem_of

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
        raise DataDirError(f"data directory {path}: {_reason(error)}; choose another with --data-dir") from error


def _reason(error: OSError) -> str:
    match error:
        case FileExistsError() | NotADirectoryError():
            return "is a file, or lies in one"
        case FileNotFoundError():
            return "cannot be created"
    return error.strerror or str(error)


def prepare(path: Path) -> Path:
    """Create the directory if needed, closed to other users. Return its absolute path.

    Raises :class:`DataDirError` for an existing directory that is not private.
    """
    with _usable(path):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_private(path)
        return path.resolve(strict=True)


def note_broker(data_dir: Path, url: str) -> None:
    """Store the broker's URL for other commands, which must find the broker of a running ``headrace up``."""
    with _usable(data_dir), _opened(data_dir / "broker-url", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        file.write(url.encode())


def broker_url(data_dir: Path) -> str | None:
    """Return the URL of the last ``headrace up``, or None if there was none.

    Raises :class:`DataDirError` for a directory that is not private: another user's URL would get API keys.
    """
    file = data_dir / "broker-url"
    with contextlib.suppress(OSError):
        if file.is_file():  # a pipe of another user would never end
            _check_private(data_dir)
            return file.read_text()
    return None


def _check_private(path: Path) -> None:
    if problem := problem_of(path):
        raise DataDirError(f"data directory {path}: {problem}")


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
        lock = _opened(data_dir / "lock", os.O_RDWR | os.O_APPEND | os.O_CREAT)
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


def _opened(path: Path, flags: int) -> FileIO:
    """Open a file of the data directory, but not through a symbolic link. A new one is closed to other users."""
    return FileIO(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+" if flags & os.O_RDWR else "w")


def _read_secret(path: Path) -> str:
    found = path.read_text(encoding="ascii", errors="replace").strip()
    if (mode := stat.S_IMODE(path.stat().st_mode)) & OF_OTHERS:
        raise DataDirError(
            f"{path}: open to other users (mode {mode:03o}); delete the file, and a new one is created"
        )
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
