"""Version of the data in Redis: processes of different versions must not share a database.

``hr:data_version`` names the version. A process sets it at its start if the database has no data of Headrace, and the
sweep of every process sets it again after Redis was emptied. Data without it counts as version 0. API keys and
tombstones do not count as data: all versions so far read them alike.
"""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final, Protocol

from shared.broker.cluster.slots import slot_of
from shared.broker.keys import (
    CATALOG,
    DATA_VERSION,
    DATA_VERSION_KEY,
    DESK,
    ENDED,
    FAILED,
    PROCESSES,
    QUEUE,
    SWEEP,
    TAKEN,
    TURNS,
    WAITING,
    sweep_keys,
)
from shared.broker.pipeline_connection import Command
from shared.protocol.ids import BUCKETS

UNVERSIONED: Final = 0
#: Sets the version if there is none, and returns the one that was there.
HOLD_VERSION: Final[Command] = ("SET", DATA_VERSION_KEY, DATA_VERSION, "NX", "GET")

#: A database with any of these keys has data: a running Headrace keeps several of them, and each stream an index.
_OURS: Final = (
    *(QUEUE, TURNS, WAITING, TAKEN, CATALOG, SWEEP, ENDED, FAILED, PROCESSES),
    *(key for keys in sweep_keys() for key in keys),
)
#: The same keys as versions up to 6 name them.
_OLDER: Final = (
    *(key.replace(DESK, "hr:") for key in _OURS if key.startswith(DESK)),
    *(f"hr:{{{bucket:02x}}}:{kind}" for bucket in range(BUCKETS) for kind in ("index", "pulse")),
)
#: By slots, since one command has keys of one.
_EVIDENCE: Final = tuple(
    ("EXISTS", *keys) for _, keys in groupby(sorted((*_OURS, *_OLDER), key=slot_of), key=slot_of)
)
#: After Redis was emptied, or while another process starts, data can precede its version. Running processes set it
#: within 0.25 s (sweep.py).
_SETTLED_AFTER_S: Final = 2.0


class _Connection(Protocol):
    async def exchange(self, commands: Sequence[Command]) -> list[Any]: ...


class DataVersion:
    """The check of a starting process. ``found``: the version of the database, when it was last read."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._refused_since: float | None = None
        self.found: int | None = None

    @property
    def is_adopted(self) -> bool:
        return self.found == DATA_VERSION

    @property
    def is_refused(self) -> bool:
        """True if the database has had another version for a while, and not only until a process sets ours."""
        return self._refused_since is not None and time.monotonic() - self._refused_since > _SETTLED_AFTER_S

    async def adopt(self) -> None:
        """Read the version; set ours if there is no data. Raises ``REDIS_ERRORS``."""
        self.found = await self._adopt()
        if self.is_adopted:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()

    async def _adopt(self) -> int:
        stored, *data = await self._run(("GET", DATA_VERSION_KEY), *_EVIDENCE)
        found = UNVERSIONED if stored is None else int(stored)
        if found == DATA_VERSION or any(data):
            return found
        if stored is not None:  # left by a version of which no data remains
            await self._run(("SET", DATA_VERSION_KEY, DATA_VERSION))
            return DATA_VERSION
        (before,) = await self._run(HOLD_VERSION)
        return DATA_VERSION if before is None else int(before)

    async def _run(self, *commands: Command) -> list[Any]:
        replies = await self._connection.exchange(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies


async def read_version(connection: _Connection) -> int:
    """Return the version of the database, and adopt nothing; ``UNVERSIONED`` if it has none. Raises
    ``REDIS_ERRORS``."""
    (found,) = await connection.exchange([("GET", DATA_VERSION_KEY)])
    if isinstance(found, Exception):
        raise found
    return UNVERSIONED if found is None else int(found)


def other_version(reply: bytes | None) -> int | None:
    """Return the version in the reply to :data:`HOLD_VERSION`, unless it is ours."""
    return None if reply is None or int(reply) == DATA_VERSION else int(reply)


def describe_refusal(found: int | None) -> str:
    """Explain to an operator why a process refuses a database."""
    has = f"data of version {found}" if found else "data of an older Headrace without a version (version 0)"
    return (
        f"Redis has {has}, and this process uses version {DATA_VERSION} ({DATA_VERSION_KEY}): stop the processes of "
        "the other version; then set HEADRACE_REDIS_URL to another database, empty this one, or wait until its data "
        "has expired (retention, at least a day)"
    )
