"""The list of running gateways and workers, for operators. Each reports every few seconds; nothing depends on it.

``processes`` is a sorted set of process ids by the time of their last report, ``process:<id>`` the report. A
process that stops reporting is forgotten.
"""

import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Literal

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import PROCESSES, RELOAD, process_key
from shared.broker.pipeline_connection import Command
from shared.errors import BrokerUnavailable
from shared.file_descriptors import open_files_limit
from shared.polling import next_poll
from shared.printable import printable
from shared.version import VERSION

_REPORT_EVERY_S: Final = 2.0
_LIFE_MS: Final = 15_000
_MOST: Final = 500
_REQUEST_LIFE_S: Final = 60
_LONGEST_PROBLEM: Final = 4000


class Load(msgspec.Struct, frozen=True):
    """Load of one process. ``streams``: streams that a worker writes or a gateway reads. ``slots``: most streams a
    worker writes at once. ``readers``: clients of a gateway. ``lag_s``: recent worst lag of the event loop.
    ``configuration``: hash of the one that the process has read; empty for an older version."""

    streams: int
    slots: int = 0
    readers: int = 0
    lag_s: float = 0.0
    draining: bool = False
    configuration: str = ""


class Process(msgspec.Struct, frozen=True):
    """One process' report. ``since``: time of its start, in Unix seconds.
    ``reload``: id of the last request to reload that the process has handled. ``problem``: it refused the file of
    that request, and why. ``version`` and ``files``, the limit of open files, are empty and 0 for an older version.
    ``listens_on``: host and port of a gateway. ``hooks``: ``HEADRACE_HOOKS`` of the process; empty without, and for a
    version that does not know hooks."""

    id: str
    kind: Literal["gateway", "worker"]
    host: str
    pid: int
    since: float
    load: Load
    reload: str = ""
    problem: str = ""
    version: str = ""
    files: int = 0
    listens_on: tuple[str, int] | None = None
    hooks: str = ""


_decoder: Final = msgspec.json.Decoder(Process)


class Presence:
    """Reports that this process is running, with the load that ``read_load`` returns."""

    def __init__(
        self,
        client: Client,
        process_id: str,
        kind: Literal["gateway", "worker"],
        read_load: Callable[[], Load],
        reload: Callable[[], Awaitable[str]],
        listens_on: tuple[str, int] | None = None,
        hooks: str | None = None,
    ) -> None:
        self._client = client
        self._listens_on = listens_on
        self._hooks = hooks or ""
        self._id = process_id
        self._kind = kind
        self._read_load = read_load
        self._reload = reload
        self._since = time.time()
        self._handled = self._problem = ""

    async def run(self) -> None:
        """Run until cancelled: report at a fixed interval."""
        while True:
            with suppress(BrokerUnavailable):
                request = await self._report()
                if request not in {"", self._handled}:
                    self._problem = printable(await self._reload())[:_LONGEST_PROBLEM]
                    self._handled = request
                    await self._report()
            await next_poll(_REPORT_EVERY_S)

    async def leave(self) -> None:
        """Withdraw the report. If Redis does not answer, the report expires by itself."""
        with suppress(BrokerUnavailable):
            await run_commands(self._client, [("ZREM", PROCESSES, self._id), ("DEL", process_key(self._id))])

    async def _report(self) -> str:
        """Report, and return the id of the latest request to reload."""
        report = Process(
            id=self._id,
            kind=self._kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=self._since,
            load=self._read_load(),
            reload=self._handled,
            problem=self._problem,
            version=VERSION,
            files=open_files_limit(),
            listens_on=self._listens_on,
            hooks=self._hooks,
        )
        now_ms = time.time_ns() // 1_000_000
        commands: list[Command] = [
            ("SET", process_key(self._id), msgspec.json.encode(report), "PX", _LIFE_MS),
            ("ZADD", PROCESSES, now_ms, self._id),
            ("ZREMRANGEBYSCORE", PROCESSES, "-inf", now_ms - 4 * _LIFE_MS),
            ("PEXPIRE", PROCESSES, 4 * _LIFE_MS),
            ("GET", RELOAD),
        ]
        *_, request = await run_commands(self._client, commands)
        return request.decode() if request else ""


async def request_reload(client: Client, request_id: str) -> None:
    """Ask every process to read its file again. Its report then has this id. Raises :class:`BrokerUnavailable`."""
    await run_commands(client, [("SET", RELOAD, request_id, "EX", _REQUEST_LIFE_S)])


async def read_processes(client: Client) -> list[Process]:
    """Return gateways and then workers, the oldest first. Raises :class:`BrokerUnavailable`."""
    (ids,) = await run_commands(client, [("ZRANGE", PROCESSES, 0, _MOST - 1)])
    if not ids:
        return []
    (reports,) = await run_commands(client, [("MGET", *(process_key(each.decode()) for each in ids))])
    found = [_decoder.decode(each) for each in reports if each is not None]
    return sorted(found, key=lambda process: (process.kind, process.since, process.id))


async def count_workers(client: Client) -> int:
    """Return the number of workers that have reported lately. Raises :class:`BrokerUnavailable`."""
    oldest_ms = time.time_ns() // 1_000_000 - _LIFE_MS
    (ids,) = await run_commands(client, [("ZRANGEBYSCORE", PROCESSES, oldest_ms, "+inf")])
    return sum(process_id.startswith(b"w") for process_id in ids)


async def read_clock_offsets(client: Client, process_ids: Sequence[str]) -> dict[str, float]:
    """Return by how many seconds each process' clock is ahead of this machine's; those without a report are left out.

    The score of a report is the process' own time, and its remaining life tells its age. Raises
    :class:`BrokerUnavailable`.
    """
    commands: list[Command] = []
    for process_id in process_ids:
        commands += [("ZSCORE", PROCESSES, process_id), ("PTTL", process_key(process_id))]
    sent_at = time.time()
    replies = await run_commands(client, commands) if commands else []
    read_at = (sent_at + time.time()) / 2
    offsets = {}
    for process_id, score, left_ms in zip(process_ids, replies[::2], replies[1::2], strict=True):
        if score is not None and left_ms > 0:
            age_s = (_LIFE_MS - left_ms) / 1000
            offsets[process_id] = float(score) / 1000 - (read_at - age_s)
    return offsets
