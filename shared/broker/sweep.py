"""The periodic look for streams that nobody holds and that should go on or end, and the pulse of Redis itself.

Every gateway and worker is ready to sweep, so that streams end even where no worker lives; one does at a time, once a
second. It only decides what nobody else can: a stream that waits goes back into the queue, one that waited longer
than the queue timeout is ended, and one that was cancelled is ended at once. Whoever claims a stream decides
everything else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shared.broker.client import REDIS_ERRORS, Client, parse_info, run_commands, run_scripts
from shared.broker.ending import Outcome, end_unheld
from shared.broker.keys import SWEEP, index_key, state_key, sweep_keys
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.replies import Due
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable, ContentUnreadable, GenerationError, Unavailable
from shared.protocol.lifecycle import Status
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: A sweeper that dies is replaced before its pulse is taken for a Redis in trouble (2 s, `in_trouble`).
_TRY_EVERY_S = 0.25
_TURN_MS = 1500
_EVERY_S = 1.0

Requeue = Callable[[str], Awaitable[bool]]


class Sweep:
    """``line`` is used for nothing but the rounds. ``requeue`` queues a stream's id; False where it waits already.
    ``count`` is told each thing done."""

    def __init__(
        self,
        client: Client,
        line: PipelineConnection,
        scripts: StreamScripts,
        settings: Settings,
        *,
        own_id: str,
        requeue: Requeue,
        count: Callable[[str], None],
    ) -> None:
        self._client = client
        self._line = line
        self._scripts = scripts
        self._queue_timeout_ms = settings.queue_timeout_s * 1000
        self._own_id = own_id.encode()
        self._put_back = requeue
        self._count = count
        self._keys = sweep_keys()

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        next_sweep = loop.time()
        while True:
            await asyncio.sleep(_TRY_EVERY_S)
            try:
                if await self._is_my_turn() and loop.time() >= next_sweep:
                    next_sweep = loop.time() + _EVERY_S
                    await self.sweep()
            except (*REDIS_ERRORS, Unavailable) as error:
                logger.debug("no sweep: %s", type(error).__name__)

    async def sweep(self) -> None:
        """All buckets once."""
        run_id = parse_info((await run_commands(self._client, [("INFO", "server")]))[0])["run_id"]
        calls = [self._scripts.sweep(keys, run_id) for keys in self._keys]
        for due in await run_scripts(self._line, calls):
            if isinstance(due, BrokerUnavailable):
                raise due
            if due.stream_ids:
                await self._look_at(due)

    async def _is_my_turn(self) -> bool:
        took, sweeper = await run_commands(
            self._client, [("SET", SWEEP, self._own_id, "NX", "PX", _TURN_MS), ("GET", SWEEP)]
        )
        if took is not None:
            return True
        if sweeper != self._own_id:
            return False
        (extended,) = await run_commands(self._client, [("PEXPIRE", SWEEP, _TURN_MS)])
        return bool(extended)

    async def _look_at(self, due: Due) -> None:
        for waits in await self._waiting(due):
            if waits.is_cancelled or waits.for_ms > self._queue_timeout_ms:
                await self._end(waits)
            elif await self._put_back(waits.stream_id):
                self._count("queued_again")
                logger.info("stream %s was put back into the queue", waits.stream_id)

    async def _waiting(self, due: Due) -> list["_Waiting"]:
        """Those that are there."""
        fields = ("status", "created", "lease_until", "cancel")
        states = await run_commands(self._client, [("HMGET", state_key(each), *fields) for each in due.stream_ids])
        waiting = []
        for stream_id, (status, created, lease_until, cancel) in zip(due.stream_ids, states, strict=True):
            if status is None:  # it expired unended; should its worker restore it, that has it looked at again
                await run_commands(self._client, [("ZREM", index_key(stream_id), stream_id)])
            else:
                for_ms = due.now_ms - max(int(created), int(lease_until or 0))
                waiting.append(_Waiting(stream_id, for_ms, Status(status.decode()), is_cancelled=cancel is not None))
        return waiting

    async def _end(self, waits: "_Waiting") -> None:
        if waits.status is Status.QUEUED:
            error = GenerationError("queue_timeout", "no worker was free in time; try again", retryable=True)
        else:
            error = GenerationError("worker_lost", "the worker writing this answer was lost")
        try:
            outcome = await end_unheld(self._client, self._scripts, waits.stream_id, Outcome.failed(error))
        except ContentUnreadable:
            logger.warning(
                "stream %s cannot be ended here: HEADRACE_CONTENT_KEYS has not the key it needs", waits.stream_id
            )
        else:
            if outcome is not None:
                self._count(error.code if outcome.error else "cancelled")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A stream that nobody holds; ``for_ms`` since it was made or last held."""

    stream_id: str
    for_ms: int
    status: Status
    is_cancelled: bool
