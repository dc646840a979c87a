"""Delivery of one stream to one client: catch-up from the log, then live from the hub, without gap or duplicate.

A subscription's only state is its cursor. The cursor moves once the client's connection has accepted the events, so
the client may resume from any cursor that is reported to Redis. While the coroutine :meth:`Subscription.chunks` waits
with everything delivered, :meth:`Subscription.take` writes what is new. The coroutine delivers all the rest, and the
end.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from typing import Final, Protocol

from gateway.live.batch import Batch
from gateway.live.feed import Feed, Reader
from gateway.live.renderer import HEARTBEAT, Renderer
from shared.broker.replies import Gone, LogPage, Lost
from shared.errors import BrokerUnavailable
from shared.protocol import events
from shared.protocol.ids import START, EventId, format_event_id
from shared.protocol.lifecycle import TERMINAL, Status
from shared.protocol.waiting import MORE, Awaited, Waiting

#: A cursor of no epoch: the whole stream follows, marked with ``reset``.
RESET: Final = EventId(0, 1)
_RETRY_S = 0.5


class Drained(Exception):
    """Raised while the gateway drains: closes a live connection so that its client reconnects elsewhere."""


class StreamSource(Protocol):
    """Source of a subscription's events; the hub is one.

    ``draining``: clients that can resume must leave. ``lost_after_s``: time after which a stream without state counts
    as lost, because a living worker would have restored it. ``workers``: number of running workers, if it is known.
    """

    @property
    def draining(self) -> bool: ...

    @property
    def lost_after_s(self) -> float: ...

    @property
    def workers(self) -> int | None: ...

    def join(self, reader: Reader) -> AbstractContextManager[Feed]:
        """Count ``reader`` as a reader of its stream while the context is open."""
        ...

    async def read(self, stream_id: str, after: EventId) -> LogPage | Gone | Lost | None:
        """Read a page of the log. Raises :class:`BrokerUnavailable`."""
        ...

    def caught_up(self, feed: Feed, at: EventId) -> None:
        """Report that a reader has the whole log, up to ``at``."""
        ...

    def advanced(self, feed: Feed, cursor: EventId) -> None:
        """Report that a reader has delivered everything up to ``cursor``."""
        ...


class Subscription:
    """Delivery of one stream to one client. ``cursor``: the last event handed to the client; START requests the whole
    stream. ``log_page``: the page of the log read when the client was admitted. ``queue_position``: position of a
    stream that waits; 0 is unknown."""

    def __init__(
        self,
        source: StreamSource,
        stream_id: str,
        cursor: EventId,
        log_page: LogPage,
        renderer: Renderer,
        queue_position: int = 0,
    ) -> None:
        self.stream_id = stream_id
        self.cursor = cursor
        self._source = source
        self._renderer = renderer
        #: Writes frames to the client at once, or returns False; set by the response once its body has begun.
        self.write: Callable[[bytes], bool] = _refuse
        #: A batch that :meth:`take` has rendered, and that was not written.
        self._refused: tuple[Batch, bytes] | None = None
        self._first_page: LogPage | None = log_page
        #: The position last sent to the client; None if the stream does not wait.
        self._queue_position = queue_position if log_page.status is Status.QUEUED else None
        self._feed: Feed | None = None
        #: The reason for a silence that the client was told last; None if it was told none since the last frames of
        #: events. Whatever tells one sets it: a client never keeps one that has passed.
        self._told: Awaited | None = None
        #: When the log was first found incomplete or missing; None while it is sound.
        self._outage_since: float | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield whole frames, up to `done`. A chunk counts as delivered when the next one is requested. Raises
        :class:`Drained` between two frames if this gateway drains."""
        with self._source.join(self) as feed:
            self._feed = feed
            if frames := self._join_queue(feed):
                yield frames
            batch = self._empty()
            while not batch.ended:
                if self._must_leave:
                    raise Drained
                version = feed.version
                batch, frames = self._refused or await self._next(feed)
                self._refused = None
                if frames:
                    yield frames
                if batch.events:
                    self._advance(feed, batch, frames)
                elif not frames:
                    await self._wait(feed, version)

    def take(self, feed: Feed, batch: Batch) -> bool:
        frames = self._renderer.render(batch)
        if frames and not self.write(frames):
            self._refused = batch, frames
            return False
        self._advance(feed, batch, frames)
        return True

    async def _next(self, feed: Feed) -> tuple[Batch, bytes]:
        """Return the next batch with its frames. If nothing is new, there may be frames with the queue position."""
        batch = self._empty()
        if self._first_page is not None:  # older than anything that the feed has received since
            batch = await self._from_log(feed)
        if not batch.events:
            batch = feed.after(self.cursor) or await self._from_log(feed)
        return batch, self._renderer.render(batch) if batch.events else self._moved_up(feed) or self._awaited(feed)

    @property
    def _must_leave(self) -> bool:
        return self._source.draining and self._renderer.resumable

    def _join_queue(self, feed: Feed) -> bytes:
        """Return frames with the queue position, if the stream waits."""
        if self._queue_position is None:
            return b""
        return self._queued(feed.join_queue(self._queue_position))

    def _moved_up(self, feed: Feed) -> bytes:
        """Return frames with the new queue position, if it has changed."""
        if self._queue_position is None or feed.queue_position in (None, self._queue_position):
            return b""
        return self._queued(feed.queue_position)

    def _queued(self, queue_position: int) -> bytes:
        self._queue_position = queue_position
        return self._tell(self._renderer.queued(queue_position), Awaited.QUEUED)

    def _awaited(self, feed: Feed) -> bytes:
        """Return frames with the reason for the silence, if it is a new one."""
        awaited = feed.awaited
        if awaited == MORE:
            awaited = Awaited.MODEL if self._told else ""
        if awaited in ("", self._told) or self._waits_in_queue or self._outage_since is not None:
            return b""
        return self._waiting(Waiting(Awaited(awaited), None, self._source.workers))

    def _waiting(self, waiting: Waiting) -> bytes:
        return self._tell(self._renderer.waiting(waiting), waiting.state)

    def _tell(self, frames: bytes, reason: Awaited) -> bytes:
        if frames:  # else the response has not begun
            self._told = reason
        return frames

    @property
    def _waits_in_queue(self) -> bool:
        """True if the client knows that the stream has not been taken, and nothing says that it has."""
        feed = self._feed
        return self._queue_position is not None and feed is not None and feed.queue_position is not None

    def heartbeat(self) -> bytes:
        """Return whole frames or a comment: a sign of life for a silent connection."""
        if not self._waits_in_queue and not self._waits_for_claim:
            return (self._awaited(self._feed) if self._feed is not None else b"") or HEARTBEAT
        position = self._queue_position if self._waits_in_queue else None
        return self._waiting(Waiting(Awaited.QUEUED, position or None, self._source.workers)) or HEARTBEAT

    @property
    def _waits_for_claim(self) -> bool:
        """True if no worker has claimed the stream, and its queue position is not followed: the worker that took it
        may be frozen, or one that drains has handed it over."""
        feed = self._feed
        return feed is not None and feed.awaited == Awaited.QUEUED and self._outage_since is None

    def _advance(self, feed: Feed, batch: Batch, frames: bytes) -> None:
        self.cursor = batch.last
        self._queue_position = None
        if frames:
            self._told = None
        self._outage_since = None
        self._source.advanced(feed, batch.last)

    async def _from_log(self, feed: Feed) -> Batch:
        """Return the next page of the log as a batch, empty if there is nothing to hand out now."""
        page = await self._read()
        if not isinstance(page, LogPage):
            return self._without_state(page)
        if self._is_beyond(page):
            # Redis lost the end of the log; the worker that still has it in memory writes it again.
            if page.status not in TERMINAL:
                self._begin_outage()
                if not self._is_overdue:
                    return self._empty()
            self.cursor = RESET
            return await self._from_log(feed)
        self._outage_since = None
        if page.events:
            return self._batch_of(page)
        end = page.end
        self._source.caught_up(feed, end)
        if feed.position is not None and feed.position > end:
            self._begin_outage()  # the log has lost events that the tail delivered: poll, since nothing may wake us
        return self._empty()

    def _without_state(self, gone: Gone | Lost | None) -> Batch:
        if isinstance(gone, Gone) and gone.deleted:
            return self._closing(events.Done("cancelled", "deleted", None))
        if isinstance(gone, Gone) and gone.dropped:
            dropped = events.Error("stream_gone", "the answer was dropped to free storage", retryable=False)
            return self._closing(dropped, events.Done("error", "stream_gone", None))
        self._begin_outage()
        if not self._is_overdue:
            return self._empty()
        lost = events.Error("stream_lost", "the stream was lost; send the request again", retryable=True)
        return self._closing(lost, events.Done("error", "stream_lost", None))

    async def _read(self) -> LogPage | Gone | Lost | None:
        if self._first_page is not None:
            page, self._first_page = self._first_page, None
            return page
        while not self._must_leave:
            try:
                return await self._source.read(self.stream_id, self.cursor)
            except BrokerUnavailable:
                await asyncio.sleep(_RETRY_S)
        raise Drained

    def _wait(self, feed: Feed, version: int) -> Awaitable[None]:
        if self._outage_since is not None:
            return self._wait_briefly(feed, version)
        return feed.changed_since(version, self)

    async def _wait_briefly(self, feed: Feed, version: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_S):
                await feed.changed_since(version)

    def _begin_outage(self) -> None:
        if self._outage_since is None:
            self._outage_since = asyncio.get_running_loop().time()

    @property
    def _is_overdue(self) -> bool:
        """True if the outage has lasted so long that a living worker would have restored the stream."""
        if self._outage_since is None:
            return False
        return asyncio.get_running_loop().time() - self._outage_since >= self._source.lost_after_s

    def _is_beyond(self, page: LogPage) -> bool:
        """True if the cursor is of the log's epoch, but after its end."""
        return page.epoch == self.cursor.epoch != 0 and self.cursor.seq > page.length

    def _batch_of(self, page: LogPage) -> Batch:
        reset = self.cursor != START and not page.follows(self.cursor)
        ids = [page.id_of(seq) for seq in range(page.first, page.first + len(page.events))]
        numbered = [(format_event_id(*at), stored) for at, stored in zip(ids, page.events, strict=True)]
        last = ids[-1]
        return Batch(numbered, last, reset=reset, ended=events.is_done(page.events[-1]))

    def _closing(self, *closing: events.Event) -> Batch:
        """Return a final batch of events that no stream contains."""
        return Batch([(b"", events.encode(event)) for event in closing], self.cursor, ended=True)

    def _empty(self) -> Batch:
        return Batch((), self.cursor)


def _refuse(_: bytes) -> bool:
    return False
