"""Single reader of Redis in a gateway process, shared by all its subscriptions.

New events come in messages, one for all viewers of a stream; one task reads from the tails what no message brought.
Another renews reader leases, acknowledges the leading readers' cursors and compares silent streams with Redis.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import ResponseError

from gateway import metrics
from gateway.live.feed import MAX_EVENTS_PER_READ, Entry, Feed, Reader, read_command
from shared.broker.client import REDIS_ERRORS, Client, refused, run_script, run_scripts
from shared.broker.declarations import Call
from shared.broker.growth import growths_in
from shared.broker.keys import gateway_channel
from shared.broker.pipeline_connection import PipelineConnection, listen
from shared.broker.queue import queue_positions
from shared.broker.replies import Gone, LogPage, LogPosition, Lost
from shared.broker.scripts import HEALING_MS, StreamScripts
from shared.errors import BrokerUnavailable, ContentUnreadable
from shared.polling import next_poll
from shared.protocol.ids import START, EventId
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: Interval at which silent streams are compared with their state and reader leases renewed; less for a short lease.
COMPARE_S = 2.0
#: Interval at which clients that wait receive their new queue position.
QUEUE_POSITIONS_S = 1.0
#: Delay before the next try after Redis has failed.
_RETRY_S = 0.2


class Hub:
    """Reader of all live streams of this gateway. ``tails`` is the connection for XREAD, ``reports`` the connection
    for acknowledgements, ``client`` serves the remaining calls."""

    def __init__(
        self,
        client: Client,
        tails: PipelineConnection,
        reports: PipelineConnection,
        scripts: StreamScripts,
        settings: Settings,
        gateway_id: str,
    ) -> None:
        self.lost_after_s = settings.lease_s + HEALING_MS / 1000
        self.draining = False
        self._client = client
        self._tails = tails
        self._reports = reports
        self._scripts = scripts
        self._gateway_id = gateway_id
        self._compare_s = min(COMPARE_S, settings.reader_lease_s / 3)
        self._settings = settings
        self._acknowledge_every = max(1, settings.window // 4)
        self._feeds: dict[str, Feed] = {}
        self._unread: dict[Feed, None] = {}  # feeds with unread events in their tails
        self._pending_acks: dict[Feed, bool] = {}  # to send before the next comparison; True if the lead has moved
        self._moved: set[Feed] = set()  # acknowledged because of a move since the last comparison
        self._pending_leaves: dict[str, EventId] = {}
        self._pending_resumes: list[tuple[str, str]] = []
        self._times_next_append = False  # one append a second is timed until a reader has received it
        self._has_pending = asyncio.Event()
        self._has_unread = asyncio.Event()

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
        self._acknowledge_soon(feed)
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
                self._unread.pop(feed, None)
                self._pending_acks.pop(feed, None)
                self._pending_leaves[stream_id] = lead
                self._has_pending.set()

    def caught_up(self, feed: Feed, at: EventId) -> None:
        """Start reading the tail after ``at``: a reader has received the log up to there."""
        if feed.position is None:
            feed.rewind(at)
            self._mark_unread(feed)

    def advanced(self, feed: Feed, cursor: EventId) -> None:
        """Note that a reader has delivered everything up to ``cursor``."""
        if feed.notified_at:
            metrics.DELIVERY.observe(asyncio.get_running_loop().time() - feed.notified_at)
            feed.notified_at = 0.0
        acknowledged = feed.acknowledged
        if cursor.epoch != acknowledged.epoch or cursor.seq - acknowledged.seq >= self._acknowledge_every:
            self._acknowledge_soon(feed, moved=True)

    def record_resume(self, stream_id: str, how: str) -> None:
        """Add a resume to the stream's timeline with the next report. Lost if Redis is unavailable."""
        self._pending_resumes.append((stream_id, how))
        self._has_pending.set()

    async def read(self, stream_id: str, after: EventId) -> LogPage | Gone | Lost | None:
        """Read a page of the log. Raises :class:`BrokerUnavailable`."""
        return await run_script(self._client, self._scripts.read(stream_id, after))

    # --- tasks

    async def listen_for_growth(self) -> None:
        """Run until cancelled: receive the messages that scripts publish when they append to a tail."""
        channels = [gateway_channel(self._gateway_id, route) for route in self._scripts.routes.all]
        while True:
            try:
                await listen(self._settings.redis_url, *channels, hear=self._hear)
            except REDIS_ERRORS as error:
                self._log("tail notifications unavailable", "SSUBSCRIBE", error)
                await asyncio.sleep(_RETRY_S)

    async def follow_tails(self) -> None:
        """Run until cancelled: read every tail that has grown, with one XREAD."""
        while True:
            await self._has_unread.wait()
            self._has_unread.clear()
            unread, self._unread = self._unread, {}
            try:
                for feed, entries in await self._read_tails([feed for feed in unread if feed.is_live]):
                    self._add(feed, entries)
                    if len(entries) == MAX_EVENTS_PER_READ:
                        self._mark_unread(feed)
            except REDIS_ERRORS as error:
                self._log("tails unavailable", "XREAD", error)
                await asyncio.sleep(_RETRY_S)
                for feed in unread:
                    self._mark_unread(feed)

    async def keep_leases(self) -> None:
        """Run until cancelled: renew reader leases, acknowledge leads and fetch log positions."""
        loop = asyncio.get_running_loop()
        next_comparison = loop.time() + self._compare_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_comparison):
                    await self._has_pending.wait()
            self._has_pending.clear()
            await self._send_pending()
            if loop.time() >= next_comparison:  # the timeout alone would never fire if reports came without a pause
                next_comparison = loop.time() + self._compare_s
                await self._compare()

    async def follow_queue_positions(self) -> None:
        """Run until cancelled: update the positions of streams in the queue and of streams parked for a provider."""
        while True:
            await next_poll(QUEUE_POSITIONS_S)
            self._times_next_append = True
            feeds = [feed for feed in self._feeds.values() if feed.queue_position is not None]
            with suppress(BrokerUnavailable):
                waiting = [feed.stream_id for feed in feeds]
                positions = await queue_positions(self._client, waiting, self._scripts.target_limits)
                for feed, position in zip(feeds, positions, strict=True):
                    feed.set_queue_position(position)

    # --- internal

    def _log(self, event: str, command: str, error: Exception) -> None:
        if isinstance(error, ResponseError):  # such as a missing right; lost connections are logged elsewhere
            refused(error, self._tails.target, command)
        logger.debug(event, extra={"error": type(error).__name__})

    def _acknowledge_soon(self, feed: Feed, *, moved: bool = False) -> None:
        feed.acknowledged = feed.lead
        self._pending_acks[feed] = moved or self._pending_acks.get(feed, False)
        self._has_pending.set()

    def _mark_unread(self, feed: Feed) -> None:
        if feed.readers:  # without readers it may have been replaced by another feed of the same stream
            self._unread[feed] = None
            self._has_unread.set()

    def _hear(self, messages: list[bytes]) -> None:
        """Add the events of messages to their feeds. What does not fit has to be read: a message is a hint."""
        try:
            growths = [growth for message in messages for growth in growths_in(message)]
        except ValueError:  # of another version, or not from us
            growths, messages = [], []
        if not messages:  # the subscription begins; earlier messages may have been lost
            for feed in self._feeds.values():
                self._mark_unread(feed)
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

    async def _read_tails(self, feeds: list[Feed]) -> list[tuple[Feed, list[Entry]]]:
        if not feeds:
            return []
        keys = {feed.tail_key: feed for feed in feeds}
        by_route: dict[str, list[Feed]] = {}
        for feed in feeds:
            by_route.setdefault(self._scripts.routes.of(feed.stream_id), []).append(feed)
        replies = await self._tails.exchange([read_command(together) for together in by_route.values()])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [(keys[key], entries) for reply in replies for key, entries in reply or []]

    async def _send_pending(self) -> None:
        acks, self._pending_acks = self._pending_acks, {}
        leaves, self._pending_leaves = self._pending_leaves, {}
        resumes, self._pending_resumes = self._pending_resumes, []
        feeds = [feed for feed in acks if feed.readers]
        calls: list[Call[Any]] = [self._acknowledgement(feed) for feed in feeds]
        calls += [
            self._scripts.leave(stream_id, self._gateway_id, lead)
            for stream_id, lead in leaves.items()
            if stream_id not in self._feeds
        ]
        calls += [self._scripts.note_resume(stream_id, how) for stream_id, how in resumes]
        if calls:
            replies = await run_scripts(self._reports, calls)  # the next comparison repeats a failed acknowledgement
            for feed, reply in zip(feeds, replies, strict=False):
                # Scripts notify only gateways that have a reader lease: appends before the first one went unnoticed.
                if isinstance(reply, LogPosition) and feed.position not in (None, reply.at):
                    self._mark_unread(feed)
                if isinstance(reply, LogPosition) and acks[feed]:
                    self._moved.add(feed)

    async def _compare(self) -> None:
        """Renew every reader lease, and check silent streams for events that this gateway has missed. Skip a feed
        whose move has been acknowledged since the last comparison: that renewed the lease, and it is not silent."""
        feeds = [feed for feed in self._feeds.values() if feed not in self._moved]
        self._moved.clear()
        before = [feed.position if feed.position == feed.compared_at else None for feed in feeds]
        replies = await run_scripts(self._reports, [self._acknowledgement(feed) for feed in feeds]) if feeds else []
        for feed, position, reply in zip(feeds, before, replies, strict=True):
            if isinstance(reply, BrokerUnavailable):
                continue
            feed.set_missing(missing=reply is None)
            if reply is not None and feed.position not in (None, reply.at):
                self._mark_unread(feed)  # the notification may have been lost
            feed.compared_at = feed.position
            if reply is not None and position is not None and feed.position == position:
                self._catch_up_silent(feed, reply)

    def _catch_up_silent(self, feed: Feed, redis: LogPosition) -> None:
        """Rewind a silent feed (unmoved since the last comparison) if its cursor is not at the log's end: XREAD from
        a cursor ahead of the tail returns nothing. Readers take events in transit from the log."""
        if redis.at not in (feed.position, START):
            feed.rewind(redis.at)

    def _acknowledgement(self, feed: Feed) -> Call[LogPosition | None]:
        feed.acknowledged = feed.lead
        return self._scripts.acknowledge(feed.stream_id, self._gateway_id, feed.acknowledged)
