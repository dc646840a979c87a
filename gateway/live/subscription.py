"""One client's way through a stream: catch-up from the log, then live from the hub, without gap or duplicate.

The cursor is all it has. It moves only when the client's socket has taken what was handed out, so a cursor that
Redis hears of is one the client may resume from.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from gateway.live.batch import Batch
from gateway.live.feed import Feed
from gateway.live.renderer import Renderer
from shared.broker.replies import Gone, LogPage, Lost
from shared.errors import BrokerUnavailable
from shared.protocol import events
from shared.protocol.ids import START, EventId, format_event_id
from shared.protocol.lifecycle import TERMINAL, Status

if TYPE_CHECKING:
    from gateway.live.hub import Hub

#: A cursor of no epoch: what follows is everything, told with ``reset``.
RESET: Final = EventId(0, 1)
_RETRY_S = 0.5


class Drained(Exception):
    """This gateway leaves. Not an answer: it closes a live connection so that its client reconnects."""


class Subscription:
    """``cursor``: the last event the client was handed; START for everything. ``page``: what the log said of it
    when the client was let in. ``place``: in the queue, for a stream that waits; 0 where that is not known."""

    def __init__(
        self, hub: "Hub", stream_id: str, cursor: EventId, page: LogPage, renderer: Renderer, place: int = 0
    ) -> None:
        self.stream_id = stream_id
        self.cursor = cursor
        self._hub = hub
        self._renderer = renderer
        self._first_page: LogPage | None = page
        #: As the client heard it; None where the stream does not wait.
        self._place = place if page.status is Status.QUEUED else None
        self._trouble_since: float | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Whole frames, to `done`. A chunk counts as delivered when the next one is asked for. Raises
        :class:`Drained` between two frames where this gateway leaves."""
        with self._hub.join(self) as feed:
            if self._place is not None:
                self._place = feed.wait_at(self._place)
                if frames := self._renderer.queued(self._place):
                    yield frames
            while True:
                if self._leaves:
                    raise Drained
                # The first page is older than anything the feed may have told since.
                version = feed.version if self._first_page is None else -1
                run = feed.after(self.cursor) if self._first_page is None else None
                if run is None:
                    run = await self._from_log(feed)
                frames = self._renderer.render(run) if run.events else self._moved_up(feed)
                if frames:
                    yield frames
                if run.events:
                    self._advance(feed, run)
                elif not frames:
                    await self._wait(feed, version)
                if run.ended:
                    return

    @property
    def _leaves(self) -> bool:
        return self._hub.draining and self._renderer.resumable

    def _moved_up(self, feed: Feed) -> bytes:
        if self._place is None or feed.place in (None, self._place):
            return b""
        self._place = feed.place
        return self._renderer.queued(feed.place)

    def _advance(self, feed: Feed, run: Batch) -> None:
        self.cursor = run.last
        self._place = None
        self._trouble_since = None
        self._hub.advanced(feed, run.last)

    async def _from_log(self, feed: Feed) -> Batch:
        """The next page of the log; empty where there is nothing to hand out now."""
        page = await self._read()
        if not isinstance(page, LogPage):
            return self._without_state(page)
        if self._is_beyond(page):
            # Redis lost the end of the log; the worker that holds it in memory writes it again.
            if page.status not in TERMINAL and not self._has_waited_long_enough():
                return self._nothing()
            self.cursor = RESET
            return await self._from_log(feed)
        self._trouble_since = None
        if page.events:
            return self._run(page)
        end = EventId(page.epoch, page.length)
        self._hub.caught_up(feed, end)
        if feed.position is not None and feed.position > end:
            self._has_waited_long_enough()  # the log has lost what the tail told: look again, though nobody wakes us
        return self._nothing()

    def _without_state(self, gone: Gone | Lost | None) -> Batch:
        if isinstance(gone, Gone) and gone.deleted:
            return self._end(events.Done("cancelled", "deleted", None))
        if not self._has_waited_long_enough():
            return self._nothing()
        lost = events.Error("stream_lost", "the stream was lost; ask again", retryable=True)
        return self._end(lost, events.Done("error", "stream_lost", None))

    async def _read(self) -> LogPage | Gone | Lost | None:
        if self._first_page is not None:
            page, self._first_page = self._first_page, None
            return page
        while not self._leaves:
            try:
                return await self._hub.read(self.stream_id, self.cursor)
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_S)
        raise Drained

    def _wait(self, feed: Feed, version: int) -> Awaitable[None]:
        return feed.changed_since(version) if self._trouble_since is None else self._wait_a_little(feed, version)

    async def _wait_a_little(self, feed: Feed, version: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_S):
                await feed.changed_since(version)

    def _has_waited_long_enough(self) -> bool:
        """A living worker would have healed the stream by now (design §4 rule 5)."""
        now = asyncio.get_running_loop().time()
        if self._trouble_since is None:
            self._trouble_since = now
        return now - self._trouble_since >= self._hub.lost_after_s

    def _is_beyond(self, page: LogPage) -> bool:
        return page.epoch == self.cursor.epoch != 0 and self.cursor.seq > page.length

    def _run(self, page: LogPage) -> Batch:
        reset = self.cursor not in (START, EventId(page.epoch, self.cursor.seq))
        numbered = [(format_event_id(page.epoch, page.first + i), stored) for i, stored in enumerate(page.events)]
        last = EventId(page.epoch, page.first + len(page.events) - 1)
        return Batch(numbered, last, reset=reset, ended=events.is_done(page.events[-1]))

    def _end(self, *closing: events.Event) -> Batch:
        """An end that no stream holds."""
        return Batch([(b"", events.encode(event)) for event in closing], self.cursor, ended=True)

    def _nothing(self) -> Batch:
        return Batch((), self.cursor)
