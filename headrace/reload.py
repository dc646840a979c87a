"""The command ``headrace reload``: every gateway and worker of one Redis reads its file again."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

from headrace.printer import note
from headrace.recorded import act
from headrace.table import table
from shared.broker.client import Client
from shared.broker.processes import Process, read_processes, request_reload

#: Processes look every two seconds. One that was killed is listed for 15 s.
_WITHIN_S: Final = 25.0
_EVERY_S: Final = 0.25


async def reload(client: Client) -> int:
    """Print the result of each process. Return the exit code: 0, or 1 if one refused the file or did not answer.
    Raises :class:`BrokerUnavailable`."""
    request_id = secrets.token_hex(8)
    async with act(client, "configuration.reload", "all processes"):
        await request_reload(client, request_id)
    deadline = time.monotonic() + _WITHIN_S
    while True:
        processes = await read_processes(client)
        if all(process.reload == request_id for process in processes) or time.monotonic() > deadline:
            break
        await asyncio.sleep(_EVERY_S)
    if not processes:
        note("no gateway or worker uses this Redis; check HEADRACE_REDIS_URL or --data-dir")
        return 1
    print(table([_row(process, request_id) for process in processes]))
    if len({process.load.configuration for process in processes}) > 1:
        note("the processes have different configurations; give all of them the same file")
    return 0 if all(_took(process, request_id) for process in processes) else 1


def _took(process: Process, request_id: str) -> bool:
    return process.reload == request_id and not process.problem


def _row(process: Process, request_id: str) -> Sequence[str]:
    if process.reload != request_id:
        state, detail = "NO ANSWER", "it is stopped, overloaded or of an older version; look at its log"
    elif process.problem:
        state, detail = "REFUSED", process.problem.replace("\n", " | ")
    else:
        state, detail = "ok", ""
    return state, process.kind, process.id, process.host, f"pid {process.pid}", process.load.configuration, detail
