"""Which gateways and workers there are: each says so every few seconds, for operators to see. Nothing depends on it.

``hr:processes`` is a sorted set of them by their last word, ``hr:process:<id>`` what each says of itself; one that
says nothing more is forgotten.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import PROCESSES, process_key
from shared.broker.pipeline_connection import Command
from shared.errors import BrokerUnavailable

_TELL_EVERY_S: Final = 2.0
_LIFE_MS: Final = 15_000
_MOST: Final = 500


class Load(msgspec.Struct, frozen=True):
    """``streams``: that a worker writes or a gateway reads. ``slots``: how many a worker may have at once;
    ``readers``: clients of a gateway. ``lag_s``: of its event loop, the worst of late."""

    streams: int
    slots: int = 0
    readers: int = 0
    lag_s: float = 0.0
    draining: bool = False


class Process(msgspec.Struct, frozen=True):
    """``since``: when it started, in Unix seconds."""

    id: str
    kind: Literal["gateway", "worker"]
    host: str
    pid: int
    since: float
    load: Load


_decoder: Final = msgspec.json.Decoder(Process)


class Presence:
    """Says that this process is there, with what ``look`` tells of it."""

    def __init__(
        self,
        client: Client,
        process_id: str,
        kind: Literal["gateway", "worker"],
        look: Callable[[], Load],
    ) -> None:
        self._client = client
        self._id = process_id
        self._kind = kind
        self._look = look
        self._since = time.time()

    async def run(self) -> None:
        """For ever."""
        while True:
            with suppress(BrokerUnavailable):
                await self._tell()
            await asyncio.sleep(_TELL_EVERY_S)

    async def leave(self) -> None:
        """Be forgotten at once. What is not heard is forgotten by itself."""
        with suppress(BrokerUnavailable):
            await run_commands(self._client, [("ZREM", PROCESSES, self._id), ("DEL", process_key(self._id))])

    async def _tell(self) -> None:
        told = Process(
            id=self._id,
            kind=self._kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=self._since,
            load=self._look(),
        )
        now_ms = time.time_ns() // 1_000_000
        commands: list[Command] = [
            ("SET", process_key(self._id), msgspec.json.encode(told), "PX", _LIFE_MS),
            ("ZADD", PROCESSES, now_ms, self._id),
            ("ZREMRANGEBYSCORE", PROCESSES, "-inf", now_ms - 4 * _LIFE_MS),
            ("PEXPIRE", PROCESSES, 4 * _LIFE_MS),
        ]
        await run_commands(self._client, commands)


async def read_processes(client: Client) -> list[Process]:
    """Gateways and then workers, the oldest first. Raises :class:`BrokerUnavailable`."""
    (ids,) = await run_commands(client, [("ZRANGE", PROCESSES, 0, _MOST - 1)])
    if not ids:
        return []
    (told,) = await run_commands(client, [("MGET", *(process_key(each.decode()) for each in ids))])
    found = [_decoder.decode(each) for each in told if each is not None]
    return sorted(found, key=lambda process: (process.kind, process.since, process.id))
