"""The log of an archived stream as the source of subscriptions: its readers get what Redis would give them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from gateway import metrics
from gateway.live.feed import Feed, Reader
from gateway.live.hub import Hub
from shared.archive.records import ArchivedStream
from shared.broker.replies import LogPage
from shared.broker.scripts import MAX_EVENTS_PER_PAGE
from shared.errors import StreamArchived
from shared.protocol import events
from shared.protocol.ids import EventId, parse_event_id
from shared.protocol.lifecycle import Status
from shared.protocol.lineage import Lineage

_PAGE_BYTES: Final = 256 * 1024


class ArchivedLog:
    """A log that has ended. Its pages are those of ``read.lua``. See :class:`StreamSource`."""

    lost_after_s = 0.0
    workers = None

    def __init__(self, archived: ArchivedStream, hub: Hub) -> None:
        self._hub = hub
        self.stream = archived
        self._epoch = parse_event_id(archived.end).epoch
        self._lineage = Lineage(archived.fields.get("lineage", ""))

    @classmethod
    def of(cls, archived: ArchivedStream, hub: Hub, *, status_url: str) -> Self:
        """Return the log of a stream. Raises :class:`StreamArchived` if the archive does not have the events as they
        were."""
        if not (archived.has_cursors and archived.events and events.is_done(archived.events[-1])):
            raise StreamArchived(status_url)
        return cls(archived, hub)

    @property
    def draining(self) -> bool:
        return self._hub.draining

    @contextmanager
    def join(self, reader: Reader) -> Iterator[Feed]:
        feed = Feed(self.stream.stream_id)
        metrics.SUBSCRIPTIONS.inc()
        try:
            yield feed
        finally:
            metrics.SUBSCRIPTIONS.dec()

    async def read(self, stream_id: str, after: EventId) -> LogPage:
        return self.page(after)

    def page(self, after: EventId, most_events: int = MAX_EVENTS_PER_PAGE) -> LogPage:
        """Return the page after a cursor."""
        stored, lineage = self.stream.events, self._lineage
        first = after.seq + 1 if lineage.epoch_of(after.seq, self._epoch) == after.epoch else 1
        page, size = list[bytes](), 0
        for event in stored[first - 1 : first - 1 + most_events]:
            page.append(event)
            size += len(event)
            if size >= _PAGE_BYTES:
                break
        status = Status(self.stream.status)
        return LogPage(status, self.stream.principal, self._epoch, lineage, len(stored), first, page)

    def caught_up(self, feed: Feed, at: EventId) -> None:
        """Do nothing: no events will follow."""

    def advanced(self, feed: Feed, cursor: EventId) -> None:
        """Do nothing: no worker waits for the readers."""
