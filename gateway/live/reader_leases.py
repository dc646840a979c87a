"""Reports of a gateway to Redis about its readers: their leases, the leads, departures and resumes.

The reply to a lease has the end of the log, so that each lease also finds the events of lost messages.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.live.feed import Feed
from shared.broker.client import run_scripts
from shared.broker.declarations import Call
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.replies import LogPosition
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.ids import START, EventId
from shared.settings import Settings

#: Interval at which silent streams are compared with their state and reader leases renewed; less for a short lease.
COMPARE_S = 2.0


class ReaderLeases:
    """Leases of the readers of ``feeds``, which has the feeds by stream. ``on_unread``: called with a feed that lacks
    events."""

    def __init__(
        self,
        connection: PipelineConnection,
        scripts: StreamScripts,
        settings: Settings,
        gateway_id: str,
        *,
        feeds: Mapping[str, Feed],
        on_unread: Callable[[Feed], None],
    ) -> None:
        self._connection = connection
        self._scripts = scripts
        self._gateway_id = gateway_id
        self._compare_s = min(COMPARE_S, settings.reader_lease_s / 3)
        self._feeds = feeds
        self._on_unread = on_unread
        self._to_acknowledge: dict[Feed, None] = {}  # before the next comparison; an ordered set
        self._moved: set[Feed] = set()  # acknowledged because of a move since the last comparison
        self._left: dict[str, EventId] = {}
        self._resumes: list[tuple[str, str]] = []
        self._has_pending = asyncio.Event()

    def acknowledge_soon(self, feed: Feed, *, moved: bool = False) -> None:
        """Report the lead of a feed. ``moved``: because it has moved."""
        feed.acknowledged = feed.lead
        self._to_acknowledge[feed] = None
        if moved:
            self._moved.add(feed)
        self._has_pending.set()

    def leave(self, feed: Feed, lead: EventId) -> None:
        """Report that the last reader of a feed has left."""
        self._to_acknowledge.pop(feed, None)
        self._left[feed.stream_id] = lead
        self._has_pending.set()

    def record_resume(self, stream_id: str, how: str) -> None:
        """Add a resume to the stream's timeline with the next report. Lost if Redis is unavailable."""
        self._resumes.append((stream_id, how))
        self._has_pending.set()

    async def keep(self) -> None:
        """Run until cancelled: report what has changed at once, and compare all streams at intervals."""
        loop = asyncio.get_running_loop()
        next_comparison = loop.time() + self._compare_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_comparison):
                    await self._has_pending.wait()
            await self.report()
            if loop.time() >= next_comparison:  # the timeout alone would never fire if reports came without a pause
                next_comparison = loop.time() + self._compare_s
                await self.compare()

    async def report(self) -> None:
        """Send what has changed since the last report."""
        self._has_pending.clear()
        feeds, self._to_acknowledge = list(self._to_acknowledge), {}
        left, self._left = self._left, {}
        resumes, self._resumes = self._resumes, []
        leaves = [
            self._scripts.leave(stream_id, self._gateway_id, lead)
            for stream_id, lead in left.items()
            if stream_id not in self._feeds
        ]
        notes = [self._scripts.note_resume(stream_id, how) for stream_id, how in resumes]
        for feed, reply in zip(feeds, await self._acknowledge(feeds, *leaves, *notes), strict=True):
            if not isinstance(reply, LogPosition):
                self._moved.discard(feed)  # the next comparison repeats it

    async def compare(self) -> None:
        """Renew every reader lease, and check silent streams for events that this gateway has missed. Skip a feed
        whose move has been acknowledged since the last comparison: that renewed the lease, and it is not silent."""
        feeds = [feed for feed in self._feeds.values() if feed not in self._moved]
        self._moved.clear()
        before = [feed.position if feed.position == feed.compared_at else None for feed in feeds]
        for feed, position, reply in zip(feeds, before, await self._acknowledge(feeds), strict=True):
            if isinstance(reply, BrokerUnavailable):
                continue
            feed.set_missing(missing=reply is None)
            feed.compared_at = feed.position
            is_silent = position is not None and feed.position == position
            # XREAD from a cursor ahead of the tail returns nothing. Readers take events in transit from the log.
            if is_silent and reply is not None and reply.at not in (position, START):
                feed.rewind(reply.at)

    async def _acknowledge(
        self, feeds: Sequence[Feed], *more: Call[Any]
    ) -> list[LogPosition | BrokerUnavailable | None]:
        """Acknowledge the leads of ``feeds``, and send ``more`` with it. Return the replies about the feeds."""
        for feed in feeds:
            feed.acknowledged = feed.lead
        calls = [self._scripts.acknowledge(feed.stream_id, self._gateway_id, feed.acknowledged) for feed in feeds]
        replies = (await run_scripts(self._connection, [*calls, *more]))[: len(feeds)]
        for feed, reply in zip(feeds, replies, strict=True):
            # The notification may have been lost. None comes before the first lease, which makes scripts notify us.
            if isinstance(reply, LogPosition) and feed.position not in (None, reply.at):
                self._on_unread(feed)
        return replies
