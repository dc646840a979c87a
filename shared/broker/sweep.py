"""Periodic sweep: re-queues or ends streams without a live lease, settles those that ended, and records the pulse of
Redis.

Every gateway and worker is ready to sweep, so that streams end even if no worker runs; one of them does, once a
second. A stream that waits goes back into the queue, one that waited longer than the queue timeout is ended, and one
that was cancelled is ended at once. While Redis' memory is nearly full, the oldest answers are dropped. The process
that claims a stream decides everything else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from shared.broker.client import REDIS_ERRORS, Client, report_illegal_status, run_commands, run_scripts
from shared.broker.data_version import HOLD_VERSION, describe_refusal, other_version
from shared.broker.dropping import Dropping, read_memory_use
from shared.broker.ending import Outcome, end_unheld
from shared.broker.keys import SWEEP, state_key, sweep_keys
from shared.broker.outbox import settle_ended_streams, settle_gone_streams
from shared.broker.pipeline_connection import Command
from shared.broker.replies import Due, IllegalStatus, parse_status
from shared.broker.routes import ONE_SERVER
from shared.broker.scripts import StreamScripts
from shared.broker.trouble import Reason
from shared.errors import BrokerMisconfigured, BrokerUnavailable, ContentUnreadable, GenerationError, Unavailable
from shared.polling import next_poll
from shared.protocol.lifecycle import ACTIVE, TERMINAL, Status
from shared.settings import Settings

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
#: Each sweep begins a turn anew. Another process takes over as soon as a turn has passed, and so before the missing
#: pulse of a sweeper that died counts as an outage (2 s, `is_recovering` in _stream.lua).
_TURN_MS: Final = 1500
_RETRY_S: Final = 0.25
#: How much later than the end of another's turn to look.
_LATE_S: Final = 0.02
#: Buckets in one call: few calls are cheap, and a call with many due streams must not hold Redis up for long.
_BUCKETS_PER_CALL: Final = 64

Requeue = Callable[[str], Awaitable[bool]]


class Sweep:
    """Sweeps whenever it is this process' turn. ``requeue`` queues a stream's id and returns False if it is queued
    already. ``count`` is called with the name of each action."""

    def __init__(
        self,
        client: Client,
        scripts: StreamScripts,
        settings: Settings,
        *,
        own_id: str,
        requeue: Requeue,
        count: Callable[[str], None],
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._dropping = Dropping(client, scripts, settings)
        self._queue_timeout_ms = settings.queue_timeout_s * 1000
        self._own_id = own_id.encode()
        self._requeue = requeue
        self._count = count
        buckets = sweep_keys()
        most = _BUCKETS_PER_CALL if scripts.routes is ONE_SERVER else 1
        self._calls = [scripts.sweep(buckets[first : first + most]) for first in range(0, len(buckets), most)]

    async def run(self) -> None:
        """Run until cancelled: sweep once a second while it is this process' turn. Raises
        :class:`BrokerMisconfigured` if Redis was emptied and has data of another version now."""
        while True:
            try:
                if not await self._take_turn():
                    continue
                await self.sweep()
            except BrokerMisconfigured:
                raise
            except (*REDIS_ERRORS, Unavailable) as error:
                logger.debug("sweep failed", extra={"error": type(error).__name__})
                await asyncio.sleep(_RETRY_S)
            else:
                await next_poll(_EVERY_S)

    async def sweep(self) -> None:
        """Sweep all buckets once, and begin the turn anew."""
        replies, memory, *_ = await asyncio.gather(  # together they share an exchange
            run_scripts(self._client, self._calls),
            read_memory_use(self._client),
            run_commands(self._client, [("PEXPIRE", SWEEP, _TURN_MS)]),
            self._dropping.relieve_accounts(),
        )
        for due in replies:
            if isinstance(due, BrokerUnavailable):
                raise due
            if due.stream_ids:
                await self._examine(due)
        await self._dropping.relieve(memory)

    async def _take_turn(self) -> bool:
        """Take or keep the turn. Without it, return False at the next poll, or sooner if the turn has passed then.
        The version of the data is set before all else, in case Redis was emptied."""
        take: Command = ("SET", SWEEP, self._own_id, "NX", "GET", "PX", _TURN_MS)
        version, sweeper, left_ms = await run_commands(self._client, [HOLD_VERSION, take, ("PTTL", SWEEP)])
        if (found := other_version(version)) is not None:
            raise BrokerMisconfigured(detail=describe_refusal(found), reason=Reason.DATA_VERSION)
        if sweeper in {None, self._own_id}:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, left_ms) / 1000 + _LATE_S):
                await next_poll(_EVERY_S)
        return False

    async def _examine(self, due: Due) -> None:
        streams = await self._read(due)
        gone = [stream.stream_id for stream in streams if stream.status is None]
        ended = [stream.stream_id for stream in streams if stream.status in TERMINAL]
        await settle_gone_streams(self._client, self._scripts, gone)
        await settle_ended_streams(self._client, self._scripts, ended)
        for stream in streams:
            if stream.status not in ACTIVE:
                continue
            if stream.is_cancelled or stream.for_ms > self._queue_timeout_ms:
                await self._end(stream)
            elif await self._requeue(stream.stream_id):
                self._count("queued_again")
                logger.info("stream requeued", extra={"stream_id": stream.stream_id})

    async def _read(self, due: Due) -> list["_Stream"]:
        """Return the due streams, except those with an illegal status."""
        fields = ("status", "created", "lease_until", "cancel", "provider_cursor")
        states = await run_commands(self._client, [("HMGET", state_key(each), *fields) for each in due.stream_ids])
        streams = []
        for stream_id, (status, created, lease_until, cancel, stored) in zip(due.stream_ids, states, strict=True):
            if status is None:
                streams.append(_Stream(stream_id, 0, None, is_cancelled=False))
                continue
            try:
                known = parse_status("sweep", status)
            except IllegalStatus as error:
                report_illegal_status(error, state_key(stream_id))
                continue
            for_ms = due.now_ms - max(int(created), int(lease_until or 0))
            # A worker stops a stored answer at its provider.
            is_cancelled = cancel is not None and stored in {None, b"-"}
            streams.append(_Stream(stream_id, for_ms, known, is_cancelled=is_cancelled))
        return streams

    async def _end(self, stream: "_Stream") -> None:
        if stream.status is Status.QUEUED:
            error = GenerationError("queue_timeout", "no capacity was free in time; try again", retryable=True)
        else:
            error = GenerationError("worker_lost", "the answer was interrupted; send the request again")
        try:
            outcome = await end_unheld(self._client, self._scripts, stream.stream_id, Outcome.failed(error))
        except ContentUnreadable:
            logger.warning(
                "stream cannot be ended: HEADRACE_CONTENT_KEYS lacks its key", extra={"stream_id": stream.stream_id}
            )
        else:
            if outcome is not None:
                self._count(error.code if outcome.error else "cancelled")


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream that is due. ``for_ms`` since it was created or last held. ``status``: None if it is gone.
    ``is_cancelled``: it can be ended at once."""

    stream_id: str
    for_ms: int
    status: Status | None
    is_cancelled: bool
