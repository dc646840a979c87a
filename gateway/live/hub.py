"""A gateway process's one reader of Redis, serving all its subscriptions.

One task blocks on all live tails at once; one keeps the reader leases, tells Redis how far the leading readers are
and compares streams that are silent with what Redis says of them. A thousand viewers of one stream cost one read.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

from redis.exceptions import ResponseError

from gateway import metrics
from gateway.live.feed import Entry, Feed
from gateway.live.subscription import Subscription
from shared.broker.client import REDIS_ERRORS, Client, run_script, run_scripts
from shared.broker.keys import gateway_channel
from shared.broker.pipeline_connection import Command, PipelineConnection, listen
from shared.broker.queue import queue_positions
from shared.broker.replies import Gone, LogPage, LogPosition, Lost
from shared.broker.scripts import HEALING_MS, Call, StreamScripts
from shared.broker.sealing import is_sealed
from shared.errors import BrokerUnavailable, ContentUnreadable
from shared.protocol.ids import START, EventId
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: How often silent streams are compared with their state, and reader leases renewed; more often for a short lease.
COMPARE_S = 2.0
#: How often those who wait are told that they have moved up.
QUEUE_POSITIONS_S = 1.0
_MOST_PER_STREAM = 256


class Hub:
    """``reading`` is used for the tails, ``telling`` for what is said of readers, ``client`` for the rest."""

    def __init__(
        self,
        client: Client,
        reading: PipelineConnection,
        telling: PipelineConnection,
        scripts: StreamScripts,
        settings: Settings,
        gateway_id: str,
    ) -> None:
        self.lost_after_s = settings.lease_s + HEALING_MS / 1000
        self.draining = False
        self._client = client
        self._reading = reading
        self._telling = telling
        self._scripts = scripts
        self._gateway_id = gateway_id
        self._compare_s = min(COMPARE_S, settings.reader_lease_s / 3)
        self._settings = settings
        self._acknowledge_every = max(1, settings.window // 4)
        self._feeds: dict[str, Feed] = {}
        self._grown: dict[Feed, None] = {}  # those whose tails have more to give
        self._moved: dict[Feed, None] = {}  # leads that Redis should hear of before the next comparison
        self._left: dict[str, EventId] = {}
        self._returns: list[tuple[str, str]] = []
        self._times_next = False  # one append a second is followed until a reader has it
        self._something_moved = asyncio.Event()
        self._something_grew = asyncio.Event()

    def drain(self) -> None:
        """Tell every subscription to leave; no new ones come."""
        self.draining = True
        for feed in self._feeds.values():
            feed.wake()

    @property
    def load(self) -> tuple[int, int]:
        """Streams that are read here, and by how many."""
        return len(self._feeds), sum(len(feed.readers) for feed in self._feeds.values())

    # --- what subscriptions do

    @contextmanager
    def join(self, subscription: Subscription) -> Iterator[Feed]:
        """Be counted as a reader of the stream while inside."""
        stream_id = subscription.stream_id
        feed = self._feeds.get(stream_id)
        if feed is None:
            feed = self._feeds[stream_id] = Feed(stream_id)
            metrics.STREAMS.inc()
        feed.readers.add(subscription)
        self._move(feed)
        metrics.SUBSCRIPTIONS.inc()
        try:
            yield feed
        finally:
            metrics.SUBSCRIPTIONS.dec()
            lead = feed.lead
            feed.readers.discard(subscription)
            if not feed.readers:
                del self._feeds[stream_id]
                metrics.STREAMS.dec()
                self._grown.pop(feed, None)
                self._moved.pop(feed, None)
                self._left[stream_id] = lead
                self._something_moved.set()

    def caught_up(self, feed: Feed, at: EventId) -> None:
        """A reader has all of the log; read the tail from there."""
        if feed.position is None:
            feed.rewind(at)
            self._grew(feed)

    def advanced(self, feed: Feed, cursor: EventId) -> None:
        """A reader was handed everything up to ``cursor``."""
        if feed.heard_at:
            metrics.DELIVERY.observe(asyncio.get_running_loop().time() - feed.heard_at)
            feed.heard_at = 0.0
        told = feed.acknowledged
        if cursor.epoch != told.epoch or cursor.seq - told.seq >= self._acknowledge_every:
            self._move(feed)

    def came_back(self, stream_id: str, how: str) -> None:
        """A reader has; its stream's timeline is to say so, if Redis can be told."""
        self._returns.append((stream_id, how))
        self._something_moved.set()

    async def read(self, stream_id: str, after: EventId) -> LogPage | Gone | Lost | None:
        """A page of the log. Raises :class:`BrokerUnavailable`."""
        return await run_script(self._client, self._scripts.read(stream_id, after))

    # --- the tasks

    async def listen_for_growth(self) -> None:
        """For ever: whose tails have grown, as the scripts that write them say."""
        while True:
            try:
                async with aclosing(listen(self._settings.redis_url, gateway_channel(self._gateway_id))) as batches:
                    async for batch in batches:
                        # The empty one: from now on nothing is missed; of what was before, nobody knows.
                        for stream_id in map(bytes.decode, batch) if batch else list(self._feeds):
                            if (feed := self._feeds.get(stream_id)) is not None:
                                self._grew(feed)
                                if self._times_next:
                                    self._times_next = False
                                    feed.heard_at = asyncio.get_running_loop().time()
            except REDIS_ERRORS as error:
                refused = isinstance(error, ResponseError)  # such as a user who may not use the channel
                logger.log(logging.WARNING if refused else logging.DEBUG, "nothing is heard of the tails: %r", error)
                await asyncio.sleep(0.2)

    async def follow_tails(self) -> None:
        """For ever: one XREAD over all tails that have grown."""
        while True:
            await self._something_grew.wait()
            self._something_grew.clear()
            grown, self._grown = self._grown, {}
            try:
                for feed, entries in await self._read_tails([feed for feed in grown if feed.is_live]):
                    self._add(feed, entries)
                    if len(entries) == _MOST_PER_STREAM:
                        self._grew(feed)
            except REDIS_ERRORS as error:
                logger.debug("the tails are out of reach: %s", type(error).__name__)
                await asyncio.sleep(0.2)
                for feed in grown:
                    self._grew(feed)

    async def keep_leases(self) -> None:
        """For ever: reader leases and leads to Redis, positions back."""
        loop = asyncio.get_running_loop()
        next_comparison = loop.time() + self._compare_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_comparison):
                    await self._something_moved.wait()
            self._something_moved.clear()
            await self._tell_moves()
            if loop.time() >= next_comparison:  # not left to the timeout: moves without a pause would starve it
                next_comparison = loop.time() + self._compare_s
                await self._compare()

    async def follow_queue_positions(self) -> None:
        """For ever: where those that wait stand in the queue, or among those parked for a provider."""
        while True:
            await asyncio.sleep(QUEUE_POSITIONS_S)
            self._times_next = True
            feeds = [feed for feed in self._feeds.values() if feed.place is not None]
            with suppress(BrokerUnavailable):
                places = await queue_positions(self._client, [feed.stream_id for feed in feeds], self._settings)
                for feed, place in zip(feeds, places, strict=True):
                    feed.stands_at(place)

    # --- inside

    def _move(self, feed: Feed) -> None:
        feed.acknowledged = feed.lead
        self._moved[feed] = None
        self._something_moved.set()

    def _grew(self, feed: Feed) -> None:
        if feed.readers:  # else there may be another feed of the stream by now
            self._grown[feed] = None
            self._something_grew.set()

    def _add(self, feed: Feed, entries: list[Entry]) -> None:
        try:
            for _, (_, stored) in entries:
                if is_sealed(stored):
                    opened = self._scripts.sealing.open_all(feed.stream_id, (stored for _, (_, stored) in entries))
                    entries = [(at, [name, plain]) for (at, (name, _)), plain in zip(entries, opened, strict=True)]
                    break
            feed.add(entries)
        except ContentUnreadable:
            feed.suspect(missing=True)  # readers look into the log, and hear there why they get nothing

    async def _read_tails(self, feeds: list[Feed]) -> list[tuple[Feed, list[Entry]]]:
        if not feeds:
            return []
        keys = {feed.tail_key: feed for feed in feeds}
        cursors = [feed.tail_cursor for feed in feeds]
        command: Command = ("XREAD", "COUNT", _MOST_PER_STREAM, "STREAMS", *keys, *cursors)
        (answer,) = await self._reading.exchange([command])
        if isinstance(answer, Exception):
            raise answer
        return [(keys[key], entries) for key, entries in answer or []]

    async def _tell_moves(self) -> None:
        moved, self._moved = self._moved, {}
        left, self._left = self._left, {}
        returns, self._returns = self._returns, []
        feeds = [feed for feed in moved if feed.readers]
        calls: list[Call[Any]] = [self._acknowledgement(feed) for feed in feeds]
        calls += [
            self._scripts.leave(stream_id, self._gateway_id, lead)
            for stream_id, lead in left.items()
            if stream_id not in self._feeds
        ]
        calls += [self._scripts.resumed(stream_id, how) for stream_id, how in returns]
        if calls:
            answers = await run_scripts(self._telling, calls)  # what fails is told again with the next comparison
            for feed, answer in zip(feeds, answers, strict=False):
                # Before the first word that we read the stream, nobody told us of its growth.
                if isinstance(answer, LogPosition) and feed.position not in (None, answer.at):
                    self._grew(feed)

    async def _compare(self) -> None:
        """Renew every reader lease, and see whether a silent stream has gone on without us."""
        feeds = list(self._feeds.values())
        before = [feed.position if feed.position == feed.compared_at else None for feed in feeds]
        answers = await run_scripts(self._telling, [self._acknowledgement(feed) for feed in feeds]) if feeds else []
        for feed, position, answer in zip(feeds, before, answers, strict=True):
            if isinstance(answer, BrokerUnavailable):
                continue
            feed.suspect(missing=answer is None)
            if answer is not None and feed.position not in (None, answer.at):
                self._grew(feed)  # nobody may have told us
            feed.compared_at = feed.position
            if answer is not None and position is not None and feed.position == position:
                self._catch_up_silent(feed, answer)

    def _catch_up_silent(self, feed: Feed, redis: LogPosition) -> None:
        """An XREAD whose cursor is ahead of the tail stays silent for ever. Silent means: since the last comparison.
        What is merely on its way then does no harm: readers take it from the log."""
        if redis.at not in (feed.position, START):
            feed.rewind(redis.at)

    def _acknowledgement(self, feed: Feed) -> Call[LogPosition | None]:
        feed.acknowledged = feed.lead
        return self._scripts.acknowledge(feed.stream_id, self._gateway_id, feed.acknowledged)
