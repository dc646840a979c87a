"""Periodic sweep: re-queues or ends streams without a live lease, settles those that ended, and records the pulse of
Redis.

Every gateway and worker is ready to sweep, so that streams end even if no worker runs; one of them does, once a
second, each node of a cluster by itself. A stream that waits goes back into the queue, one that waited longer than
the queue timeout is ended, and one that was cancelled is ended at once. While a server's memory is nearly full, the
oldest answers are dropped. The process that claims a stream decides everything else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from shared.broker.client import REDIS_ERRORS, Client, report_illegal_status, run_commands, run_scripts
from shared.broker.cluster.address import Node
from shared.broker.cluster.per_node import run_per_node
from shared.broker.data_version import HOLD_VERSION, describe_refusal, other_version
from shared.broker.declarations import Call
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
_BUCKETS: Final = sweep_keys()

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
        self._has_turn = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled: sweep once a second while it is this process' turn. Raises
        :class:`BrokerMisconfigured` if Redis was emptied and has data of another version now."""
        await asyncio.gather(  # their commands share an exchange, if they go to one node
            self._repeat(self._hold_version),
            self._keep_turn(),
            run_per_node(self._client.servers, self._sweep_node),
            self._repeat(self._dropping.relieve_accounts, with_turn=True),
            self._repeat(self._relieve, with_turn=True),
        )

    async def sweep(self) -> None:
        """Sweep all buckets once. Raises :class:`BrokerUnavailable`."""
        for due in await self._due_streams(self._calls_for(_BUCKETS)):
            await self._examine(due)
        await self._dropping.relieve_accounts()
        await self._relieve()

    async def _repeat(self, step: Callable[[], Awaitable[object]], *, with_turn: bool = False) -> None:
        """Take a step once a second, sooner after a failure. ``with_turn``: while it is this process' turn."""
        while True:
            if with_turn:
                await self._has_turn.wait()
            try:
                await step()
            except BrokerMisconfigured:
                raise
            except (*REDIS_ERRORS, Unavailable) as error:
                logger.debug("sweep failed", extra={"error": type(error).__name__})
                await asyncio.sleep(_RETRY_S)
            else:
                await next_poll(_EVERY_S)

    async def _sweep_node(self, node: Node) -> None:
        """Run until cancelled: sweep the buckets of one node. Due streams are examined beside it, since their other
        nodes may be away: a pulse that is late means an outage."""
        found: asyncio.Queue[Due] = asyncio.Queue()
        servers, calls, version = self._client.servers, list[Call[Due]](), -1

        async def sweep() -> None:
            nonlocal calls, version
            if version != servers.version:
                version = servers.version
                calls = self._calls_for([keys for keys in _BUCKETS if servers.node_of(keys[0]) == node])
            for due in await self._due_streams(calls):
                found.put_nowait(due)

        async def examine() -> None:
            while True:
                try:
                    await self._examine(await found.get())
                except (*REDIS_ERRORS, Unavailable) as error:  # the index has them again after a lease
                    logger.debug("due streams not examined", extra={"error": type(error).__name__})

        await asyncio.gather(self._repeat(sweep, with_turn=True), examine())

    def _calls_for(self, buckets: Sequence[tuple[str, str]]) -> list[Call[Due]]:
        most = _BUCKETS_PER_CALL if self._scripts.routes is ONE_SERVER else 1
        return [self._scripts.sweep(buckets[first : first + most]) for first in range(0, len(buckets), most)]

    async def _due_streams(self, calls: Sequence[Call[Due]]) -> list[Due]:
        """Update the pulses of buckets, and return their streams that are due."""
        replies = await run_scripts(self._client, calls)
        failed = [reply for reply in replies if isinstance(reply, BrokerUnavailable)]
        if failed and len(failed) == len(replies):
            raise failed[0]
        return [due for due in replies if not isinstance(due, BrokerUnavailable) and due.stream_ids]

    async def _relieve(self) -> None:
        await self._dropping.relieve(await read_memory_use(self._client))

    async def _hold_version(self) -> None:
        """Set the version of the data, in case Redis was emptied."""
        (version,) = await run_commands(self._client, [HOLD_VERSION])
        if (found := other_version(version)) is not None:
            raise BrokerMisconfigured(detail=describe_refusal(found), reason=Reason.DATA_VERSION)

    async def _keep_turn(self) -> None:
        """Run until cancelled: take the turn, or keep it. While the desk is away, the process that had the turn goes
        on: no other can take it, and two that sweep do no harm."""
        take: Command = ("SET", SWEEP, self._own_id, "NX", "GET", "PX", _TURN_MS)
        while True:
            try:
                sweeper, left_ms = await run_commands(self._client, [take, ("PTTL", SWEEP)])
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_S)
                continue
            if sweeper in {None, self._own_id}:
                self._has_turn.set()
                with suppress(BrokerUnavailable):  # the turn begins anew
                    await run_commands(self._client, [("PEXPIRE", SWEEP, _TURN_MS)])
                await next_poll(_EVERY_S)
                continue
            self._has_turn.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0, left_ms) / 1000 + _LATE_S):
                    await next_poll(_EVERY_S)

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
