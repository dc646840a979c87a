"""Single reader of Redis in a gateway process, shared by all its subscriptions.

New events come in messages, one for all viewers of a stream; one task reads from the tails what no message brought.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Final

from redis.exceptions import ResponseError

from gateway import metrics
from gateway.live.feed import MAX_EVENTS_PER_READ, Entry, Feed, Reader, read_command
from gateway.live.reader_leases import ReaderLeases
from shared.broker.client import REDIS_ERRORS, Client, RedisConnection, refused, run_script
from shared.broker.cluster.node_loops import NodeLoops
from shared.broker.cluster.shard_channels import listen_to_shards
from shared.broker.growth import growths_in
from shared.broker.keys import gateway_channel
from shared.broker.processes import count_workers
from shared.broker.queue import queue_positions
from shared.broker.replies import Gone, LogPage, Lost
from shared.broker.scripts import HEALING_MS, StreamScripts
from shared.errors import BrokerUnavailable, ContentUnreadable
from shared.polling import next_poll
from shared.protocol.ids import EventId
from shared.protocol.waiting import Awaited
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: Interval at which clients that wait receive their new queue position.
QUEUE_POSITIONS_S = 1.0
_WITHOUT_WORKER: Final = frozenset({Awaited.QUEUED, Awaited.WORKER_LOST})
#: Delay before the next try after Redis has failed.
_RETRY_S = 0.2


class Hub:
    """Reader of all live streams of this gateway. The loops over the tails and the reader leases have connections of
    their own, ``client`` serves the remaining calls."""

    def __init__(self, client: Client, scripts: StreamScripts, settings: Settings, gateway_id: str) -> None:
        self.lost_after_s = settings.lease_s + HEALING_MS / 1000
        self.draining = False
        #: Number of running workers, while somebody waits for one; None before that.
        self.workers: int | None = None
        self._client = client
        self._scripts = scripts
        self._channels = {gateway_channel(gateway_id, route): route for route in scripts.routes.all}
        self._acknowledge_every = max(1, settings.window // 4)
        self._feeds: dict[str, Feed] = {}
        #: Feeds with unread events in their tails.
        self._unread = NodeLoops[Feed](client.servers, self._read_tails, attrgetter("tail_key"))
        self._times_next_append = False  # one append a second is timed until a reader has received it
        self.leases = ReaderLeases(
            client.servers, scripts, settings, gateway_id, feeds=self._feeds, on_unread=self._mark_unread
        )

    def drain(self) -> None:
        """Make every subscription leave. The caller admits no new ones."""
        self.draining = True
        for feed in self._feeds.values():
            feed.wake()

    @property
    def load(self) -> tuple[int, int]:
        """Number of streams that are read here, and of their readers."""
        return len(self._feeds), sum(len(feed.readers) for feed in self._feeds.values())

    # --- calls from subscriptions

    @contextmanager
    def join(self, reader: Reader) -> Iterator[Feed]:
        """Count ``reader`` as a reader of its stream while the context is open."""
        stream_id = reader.stream_id
        feed = self._feeds.get(stream_id)
        if feed is None:
            feed = self._feeds[stream_id] = Feed(stream_id)
            metrics.STREAMS.inc()
        feed.readers.add(reader)
        self.leases.acknowledge_soon(feed)
        metrics.SUBSCRIPTIONS.inc()
        try:
            yield feed
        finally:
            metrics.SUBSCRIPTIONS.dec()
            lead = feed.lead
            feed.readers.discard(reader)
            if not feed.readers:
                del self._feeds[stream_id]
                metrics.STREAMS.dec()
                self.leases.leave(feed, lead)

    def caught_up(self, feed: Feed, at: EventId) -> None:
        """Follow the stream after ``at``: a reader has received the log up to there."""
        if feed.position is None:
            feed.rewind(at)
            if not self.leases.is_due(feed):  # else the reply to its report will show if the tail has more
                self._mark_unread(feed)

    def advanced(self, feed: Feed, cursor: EventId) -> None:
        """Note that a reader has delivered everything up to ``cursor``."""
        if feed.notified_at:
            metrics.DELIVERY.observe(asyncio.get_running_loop().time() - feed.notified_at)
            feed.notified_at = 0.0
        before = feed.acknowledged
        is_due = cursor.epoch != before.epoch or cursor.seq - before.seq >= self._acknowledge_every
        if is_due and not feed.has_ended:  # no worker waits for readers after its end
            self.leases.acknowledge_soon(feed, moved=True)

    async def read(self, stream_id: str, after: EventId) -> LogPage | Gone | Lost | None:
        """Read a page of the log. Raises :class:`BrokerUnavailable`."""
        return await run_script(self._client, self._scripts.read(stream_id, after))

    # --- tasks

    async def listen_for_growth(self) -> None:
        """Run until cancelled: receive the messages that scripts publish when they append to a tail."""
        while True:
            try:
                await listen_to_shards(
                    self._client.servers, [*self._channels], hear=self._hear, resumed=self._begin_to_hear
                )
            except REDIS_ERRORS as error:
                self._log("tail notifications unavailable", "SSUBSCRIBE", error)
                await asyncio.sleep(_RETRY_S)

    async def follow_tails(self) -> None:
        """Run until cancelled: read every tail that has grown, with one XREAD for each route."""
        await self._unread.run()

    async def follow_queue_positions(self) -> None:
        """Run until cancelled: update the positions of streams in the queue and of streams parked for a provider."""
        while True:
            await next_poll(QUEUE_POSITIONS_S)
            self._times_next_append = True
            feeds = [feed for feed in self._feeds.values() if feed.queue_position is not None]
            with suppress(BrokerUnavailable):
                waiting = [feed.stream_id for feed in feeds]
                positions = await queue_positions(self._client, waiting, self._scripts.target_limits)
                if feeds or any(feed.awaited in _WITHOUT_WORKER for feed in self._feeds.values()):
                    self.workers = await count_workers(self._client)
                for feed, position in zip(feeds, positions, strict=True):
                    feed.set_queue_position(position)

    # --- internal

    def _log(self, event: str, command: str, error: Exception) -> None:
        if isinstance(error, ResponseError):  # such as a missing right; lost connections are logged elsewhere
            refused(error, self._client.target, command)
        logger.debug(event, extra={"error": type(error).__name__})

    def _mark_unread(self, feed: Feed) -> None:
        if feed.readers:  # without readers it may have been replaced by another feed of the same stream
            self._unread.put(feed)

    def _begin_to_hear(self, channels: list[str]) -> None:
        """Read the feeds of channels whose earlier messages may have been lost."""
        routes = {self._channels[channel] for channel in channels}
        for feed in self._feeds.values():
            if self._scripts.routes.of(feed.stream_id) in routes:
                self._mark_unread(feed)

    def _hear(self, messages: list[bytes]) -> None:
        """Add the events of messages to their feeds. What does not fit has to be read: a message is a hint."""
        try:
            growths = [growth for message in messages for growth in growths_in(message)]
        except ValueError:  # of another version, or not from us
            growths = []
            self._begin_to_hear([*self._channels])
        for growth in growths:
            if (reading := self._feeds.get(growth.stream_id)) is None:
                continue
            if self._times_next_append:
                self._times_next_append = False
                reading.notified_at = asyncio.get_running_loop().time()
            opened = self._opened(reading, growth.events)
            if opened is not None and not (opened and reading.follow(growth.epoch, growth.first, opened)):
                self._mark_unread(reading)

    def _add(self, feed: Feed, entries: list[Entry]) -> None:
        opened = self._opened(feed, [stored for _, (_, stored) in entries])
        if opened is not None:
            feed.add([(at, [name, plain]) for (at, (name, _)), plain in zip(entries, opened, strict=True)])

    def _opened(self, feed: Feed, stored: list[bytes]) -> list[bytes] | None:
        """Return None if the events cannot be opened: readers turn to the log, which raises the error for their
        clients."""
        try:
            return self._scripts.sealing.open_all(feed.stream_id, stored)
        except ContentUnreadable:
            feed.set_missing(missing=True)
            return None

    async def _read_tails(self, connection: RedisConnection, feeds: list[Feed]) -> None:
        try:
            for feed, entries in await self._fetch(connection, [feed for feed in feeds if feed.is_live]):
                self._add(feed, entries)
                if len(entries) == MAX_EVENTS_PER_READ:
                    self._mark_unread(feed)
        except REDIS_ERRORS as error:
            self._log("tails unavailable", "XREAD", error)
            raise

    async def _fetch(self, connection: RedisConnection, feeds: Sequence[Feed]) -> list[tuple[Feed, list[Entry]]]:
        """Return new entries. If some routes cannot be read, return those of the others, and read these again
        later."""
        by_route: dict[str, list[Feed]] = {}
        for feed in feeds:
            by_route.setdefault(self._scripts.routes.of(feed.stream_id), []).append(feed)
        replies = await connection.exchange([read_command(together) for together in by_route.values()])
        failed = [reply for reply in replies if isinstance(reply, Exception)]
        if failed and len(failed) == len(replies):
            raise failed[0]
        keys = {feed.tail_key: feed for feed in feeds}
        for together, reply in zip(by_route.values(), replies, strict=True):
            if isinstance(reply, Exception):
                for feed in together:
                    asyncio.get_running_loop().call_later(_RETRY_S, self._mark_unread, feed)
        answered = [reply for reply in replies if reply and not isinstance(reply, Exception)]
        return [(keys[key], entries) for reply in answered for key, entries in reply]
