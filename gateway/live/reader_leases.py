"""Reports of a gateway to Redis about its readers: their leases, the leads, departures and resumes.

The reply to a lease has the end of the log, so that each lease also finds the events of lost messages.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gateway.live.feed import Feed
from shared.broker.client import RedisConnection, run_scripts
from shared.broker.cluster.node_loops import NodeLoops
from shared.broker.cluster.servers import Servers
from shared.broker.declarations import Call
from shared.broker.keys import tail_key
from shared.broker.replies import LogPosition
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.ids import START, EventId
from shared.settings import Settings

#: Interval at which silent streams are compared with their state and reader leases renewed; less for a short lease.
COMPARE_S = 2.0
#: Pause before a report is repeated that its node did not take.
_RETRY_S: Final = 0.25


class ReaderLeases:
    """Leases of the readers of ``feeds``, which has the feeds by stream. ``on_unread``: called with a feed that lacks
    events."""

    def __init__(
        self,
        servers: Servers,
        scripts: StreamScripts,
        settings: Settings,
        gateway_id: str,
        *,
        feeds: Mapping[str, Feed],
        on_unread: Callable[[Feed], None],
    ) -> None:
        self._reports = NodeLoops[str](servers, self.report, tail_key)  # by streams
        self._scripts = scripts
        self._gateway_id = gateway_id
        self._compare_s = min(COMPARE_S, settings.reader_lease_s / 3)
        self._feeds = feeds
        self._on_unread = on_unread
        self._to_acknowledge: dict[str, Feed] = {}  # with the next report
        self._to_compare: set[Feed] = set()  # some of these
        self._moved: set[Feed] = set()  # acknowledged because of a move since the last comparison
        self._left: dict[str, EventId] = {}
        self._resumes: dict[str, list[str]] = {}

    def acknowledge_soon(self, feed: Feed, *, moved: bool = False) -> None:
        """Report the lead of a feed. ``moved``: because it has moved."""
        feed.acknowledged = feed.lead
        self._to_acknowledge[feed.stream_id] = feed
        if moved:
            self._moved.add(feed)
        self._reports.put(feed.stream_id)

    def is_due(self, feed: Feed) -> bool:
        """Return True if a report of ``feed`` is yet to be sent: its reply shows whether the feed lacks events."""
        return feed.stream_id in self._to_acknowledge

    def leave(self, feed: Feed, lead: EventId) -> None:
        """Report that the last reader of a feed has left."""
        self._to_acknowledge.pop(feed.stream_id, None)
        self._to_compare.discard(feed)
        self._left[feed.stream_id] = lead
        if not feed.has_ended:  # else it only keeps the answer from being dropped: the next comparison does
            self._reports.put(feed.stream_id)

    def record_resume(self, stream_id: str, how: str) -> None:
        """Add a resume to the stream's timeline with the next report. Lost if Redis is unavailable."""
        self._resumes.setdefault(stream_id, []).append(how)
        self._reports.put(stream_id)

    async def keep(self) -> None:
        """Run until cancelled: report what has changed at once, and compare all streams at intervals."""
        await asyncio.gather(self._reports.run(), self._compare_at_intervals())

    async def _compare_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(self._compare_s)
            self.compare_soon()

    def compare_soon(self) -> None:
        """Renew every reader lease, and check silent streams for events that this gateway has missed. Skip a feed
        whose move has been acknowledged since the last comparison: that renewed the lease, and it is not silent."""
        for feed in self._feeds.values():
            if feed not in self._moved:
                self._to_compare.add(feed)
                self._to_acknowledge[feed.stream_id] = feed
                self._reports.put(feed.stream_id)
        for stream_id in self._left:
            self._reports.put(stream_id)
        self._moved.clear()

    async def report(self, connection: RedisConnection, stream_ids: Sequence[str]) -> None:
        """Send all that is to be reported about streams of one node."""
        feeds = [feed for each in stream_ids if (feed := self._to_acknowledge.pop(each, None)) is not None]
        before = {feed: feed.position if feed.position == feed.compared_at else None for feed in feeds}
        compared, self._to_compare = self._to_compare.intersection(feeds), self._to_compare.difference(feeds)
        try:
            replies = await self._acknowledge(connection, feeds, *self._other_reports(stream_ids))
        except asyncio.CancelledError:  # the node is gone, and its streams wait for another
            self._to_acknowledge = {feed.stream_id: feed for feed in feeds if feed.readers} | self._to_acknowledge
            raise
        for feed, reply in zip(feeds, replies, strict=True):
            if isinstance(reply, BrokerUnavailable):
                self._moved.discard(feed)
                self._repeat(feed, is_compared=feed in compared)
            elif feed in compared:
                _compare(feed, before[feed], reply)
            elif reply is None:
                self._moved.discard(feed)
                if feed.position is not None:
                    self._on_unread(feed)

    def _other_reports(self, stream_ids: Sequence[str]) -> list[Call[Any]]:
        """Return the departures and resumes that are to be reported. Nothing repeats them."""
        calls: list[Call[Any]] = []
        for stream_id in stream_ids:
            lead = self._left.pop(stream_id, None)
            if lead is not None and stream_id not in self._feeds:
                calls.append(self._scripts.leave(stream_id, self._gateway_id, lead))
            calls += [self._scripts.note_resume(stream_id, how) for how in self._resumes.pop(stream_id, ())]
        return calls

    def _repeat(self, feed: Feed, *, is_compared: bool) -> None:
        def repeat() -> None:
            if feed.readers:
                self.acknowledge_soon(feed)
                if is_compared:
                    self._to_compare.add(feed)

        asyncio.get_running_loop().call_later(_RETRY_S, repeat)

    async def _acknowledge(
        self, connection: RedisConnection, feeds: Sequence[Feed], *more: Call[Any]
    ) -> list[LogPosition | BrokerUnavailable | None]:
        """Acknowledge the leads of ``feeds``, and send ``more`` with it. Return the replies about the feeds."""
        for feed in feeds:
            feed.acknowledged = feed.lead
        calls = [self._scripts.acknowledge(feed.stream_id, self._gateway_id, feed.acknowledged) for feed in feeds]
        replies = (await run_scripts(connection, [*calls, *more]))[: len(feeds)]
        for feed, reply in zip(feeds, replies, strict=True):
            # The notification may have been lost. None comes before the first lease, which makes scripts notify us.
            if not isinstance(reply, LogPosition):
                continue
            if feed.position not in (None, reply.at):
                self._on_unread(feed)
            feed.set_awaited(reply.awaited, reply.at)
        return replies


def _compare(feed: Feed, position: EventId | None, reply: LogPosition | None) -> None:
    """Compare a feed with its state. ``position``: where it was when it was asked for, if it had been there at the
    comparison before."""
    feed.set_missing(missing=reply is None)
    feed.compared_at = feed.position
    is_silent = position is not None and feed.position == position
    # XREAD from a cursor ahead of the tail returns nothing. Readers take events in transit from the log.
    if is_silent and reply is not None and reply.at not in (position, START):
        feed.rewind(reply.at)
