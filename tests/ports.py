"""Free ports.

They are below the range that the system uses for outgoing connections: such a connection could take a port before the
test's server binds it. Each process of a test run has a range of its own, for the same reason.
"""

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Iterator

_LOWEST = 10_000
_RANGE = 1_000
_RANGES = 22

_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_first = _LOWEST + _process % _RANGES * _RANGE
_begin = random.randrange(_RANGE)  # a concurrent run begins elsewhere
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
