"""Leases of the streams that a worker holds, renewed together, and control messages for these streams."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import NamedTuple

from redis.exceptions import ResponseError

from shared.broker.client import REDIS_ERRORS, Client, refused, run_scripts
from shared.broker.cluster.node_loops import NodeLoops
from shared.broker.cluster.servers import NodeConnection
from shared.broker.cluster.shard_channels import listen_to_shards
from shared.broker.desk_replies import Held, OtherLanes
from shared.broker.keys import worker_channel
from shared.broker.replies import Code, WriteReply
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.settings import Settings
from workers import metrics
from workers.writing.phases import StopReason
from workers.writing.writer import StreamWriter

logger = logging.getLogger(__name__)

#: How long an ended stream's events are kept before its final check (rule E6).
LINGER_S = 10.0
#: How long a renewal shows that a stream is still held: less than the desk notes that a stream has ended.
_FRESH_S = 20.0
_HOLD_TRIES = 3


class Leases:
    """Held streams by id."""

    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings, worker_id: str) -> None:
        self._client = client
        self._renewals = NodeLoops[StreamWriter](
            client.servers,
            self._renew,
            attrgetter("holder.state_key"),
            # An unanswered renewal must be repeated before the lease expires.
            timeout_s=min(5, max(0.5, settings.lease_s / 4)),
        )
        self._renewed: dict[StreamWriter, _Renewed] = {}  # their places are to be extended
        self._has_renewed = asyncio.Event()
        self._unknown: set[StreamWriter] = set()  # to the desk, at their last extension
        self._scripts = scripts
        self._interval_s = settings.lease_s / 3
        #: Half of the retention is a safety margin: Redis counts it from an earlier moment than this process.
        self._healed_for_s = settings.retention_s / 2
        self._channels = [worker_channel(worker_id, route) for route in scripts.routes.all]
        self._writers: dict[str, StreamWriter] = {}
        self._lingering: dict[StreamWriter, float] = {}  # by the time of their end

    @contextmanager
    def hold(self, writer: StreamWriter) -> Iterator[None]:
        """Renew the writer's lease inside the scope, and keep its events for a while after it."""
        stream_id = writer.holder.stream_id
        self._writers[stream_id] = writer
        metrics.STREAMS.inc()
        try:
            yield
        finally:
            metrics.STREAMS.dec()
            if self._writers.get(stream_id) is writer:
                del self._writers[stream_id]
        if writer.is_written:
            self._lingering[writer] = asyncio.get_running_loop().time()

    def __len__(self) -> int:
        """Return the number of streams held."""
        return len(self._writers)

    def hand_over(self) -> None:
        """Stop every stream, so that other workers take them."""
        for writer in list(self._writers.values()):
            writer.stop(StopReason.HANDOVER)

    async def renew(self) -> None:
        """Run until cancelled: renew all leases of a node in one pipeline, three times per lease, sooner after a
        failure; and extend the places at the desk of streams that were renewed."""
        await asyncio.gather(self._renewals.run(), self._renew_at_intervals(), self._hold_renewed())

    async def _renew_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self._forget_expiring()
            for writer in (*self._writers.values(), *self._lingering):
                self._renewals.put(writer)

    async def _renew(self, connection: NodeConnection, writers: list[StreamWriter]) -> None:
        begun = asyncio.get_running_loop().time()
        unknown = self._unknown.intersection(writers)
        self._unknown -= unknown
        ended = {writer: self._lingering[writer] for writer in writers if writer in self._lingering}
        asked = [writer for writer in writers if writer in ended or self._holds(writer)]
        if not asked:
            return
        replies = await run_scripts(connection, [self._scripts.renew(writer.holder) for writer in asked])
        for writer, reply in zip(asked, replies, strict=True):
            if isinstance(reply, BrokerUnavailable):
                asyncio.get_running_loop().call_later(self._interval_s / 10, self._renewals.put, writer)
            elif writer in ended:
                self._settle_ended(writer, ended[writer], reply)
            else:
                writer.settle_renewal(reply)
                if reply.code is Code.OK:
                    self._renewed[writer] = _Renewed(begun, reply, is_lost=writer in unknown)
                    self._has_renewed.set()

    def _holds(self, writer: StreamWriter) -> bool:
        return self._writers.get(writer.holder.stream_id) is writer

    def _settle_ended(self, writer: StreamWriter, ended_at: float, reply: WriteReply) -> None:
        if _is_removed(reply):  # nothing may restore it
            self._lingering.pop(writer, None)
            logger.debug("removed stream forgotten", extra={"stream_id": writer.holder.stream_id})
            return
        now = asyncio.get_running_loop().time()
        if writer.check(reply) and now > ended_at + LINGER_S and writer.is_settled:
            self._lingering.pop(writer, None)

    async def _hold_renewed(self) -> None:
        while True:
            await self._has_renewed.wait()
            self._has_renewed.clear()
            renewed, self._renewed = self._renewed, {}
            await self._hold(renewed)

    async def _hold(self, renewed: Mapping[StreamWriter, "_Renewed"]) -> None:
        """Extend the places at the desk of streams whose leases were renewed just now.

        The desk does not know a stream that it has lost, or that has ended and is settled since its renewal. Only one
        that is renewed once more is lost, and counted again: its settlement comes later and leaves a mark."""
        for _ in range(_HOLD_TRIES):
            oldest = asyncio.get_running_loop().time() - _FRESH_S
            renewed = {writer: each for writer, each in renewed.items() if each.at > oldest}
            calls = [w.place.hold(self._scripts, each.reply, is_lost=each.is_lost) for w, each in renewed.items()]
            replies = dict(zip(renewed, await run_scripts(self._client, calls) if calls else [], strict=True))
            for writer, reply in replies.items():
                if isinstance(reply, OtherLanes):  # the reply to an earlier call was lost
                    writer.place.lanes = reply.lanes
                elif reply is Held.UNKNOWN:
                    self._unknown.add(writer)
                    self._renewals.put(writer)
                elif reply is Held.FAR and writer.stop_reason is None:
                    writer.stop(StopReason.STORED_BYTES)
                    await run_scripts(self._client, [self._scripts.cancel(writer.holder.stream_id, "stored_bytes")])
            renewed = {writer: each for writer, each in renewed.items() if isinstance(replies[writer], OtherLanes)}

    def _forget_expiring(self) -> None:
        """Drop ended streams before their retention ends: an expired stream is missing too, and stays so."""
        since = asyncio.get_running_loop().time() - self._healed_for_s
        for writer in [writer for writer, ended_at in self._lingering.items() if ended_at < since]:
            del self._lingering[writer]

    async def listen(self) -> None:
        """Run until cancelled: handle `cancel <id>` and `room <id>` within milliseconds. A lost message does no harm:
        the state carries the same facts."""
        while True:
            try:
                await listen_to_shards(
                    self._client.servers, self._channels, hear=self._handle_all, resumed=lambda _: None
                )
            except REDIS_ERRORS as error:
                if isinstance(error, ResponseError):
                    refused(error, self._client.target, "SSUBSCRIBE")
                logger.debug("control channel lost", extra={"error": type(error).__name__})
                await asyncio.sleep(0.2)

    def _handle_all(self, messages: list[bytes]) -> None:
        for message in messages:
            self._handle(message.decode())

    def _handle(self, message: str) -> None:
        command, _, stream_id = message.partition(" ")
        writer = self._writers.get(stream_id)
        if writer is None:
            return
        if command == "cancel":
            writer.stop(StopReason.CANCELLED)
        elif command == "room":
            writer.room()


class _Renewed(NamedTuple):
    """A renewal: its reply, and when it was sent. ``is_lost``: the desk did not know the stream before."""

    at: float
    reply: WriteReply
    is_lost: bool


def _is_removed(reply: WriteReply) -> bool:
    """Return True if the stream was deleted or dropped: there is a tombstone and no state."""
    return reply.code is Code.CLOSED and reply.epoch == 0
