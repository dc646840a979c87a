"""Free ports.

They are below the range that the system uses for outgoing connections: such a connection could take a port before the
test's server binds it. Each process of each test run on this machine has a range of its own, for the same reason.
"""

import contextlib
import fcntl
import itertools
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LOWEST = 10_000
_RANGE = 1_000
_RANGES = 22


def _own_range() -> int:
    """Return the number of a range that no other process has. It is locked until this process ends."""
    folder = Path(tempfile.gettempdir(), f"headrace-test-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(_RANGES):
        lock = os.open(folder / str(number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return number
    return random.randrange(_RANGES)  # more processes than ranges: shared, from a random port on


_first = _LOWEST + _own_range() * _RANGE
_begin = random.randrange(_RANGE)
_next: Iterator[int] = itertools.cycle([*range(_first + _begin, _first + _RANGE), *range(_first, _first + _begin)])


def free_port() -> int:
    """Return a port that is not among the last 1,000 returned."""
    return next(port for port in _next if _is_free(port))


def free_ports(count: int) -> int:
    """Return the first of ``count`` consecutive ports."""
    while True:
        first = free_port()
        if all(free_port() == first + i for i in range(1, count)):
            return first


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return True
    return False
