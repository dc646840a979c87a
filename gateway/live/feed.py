"""Recent events of one live stream, shared by all its readers on this gateway.

A feed holds consecutive events of one epoch. A reader owns only its cursor. If the feed does not cover that cursor
(it is older than the first event here, or of another epoch), the reader reads the log instead.

Events leave a feed in two ways. A reader that wakes asks for what follows its cursor (:meth:`Feed.after`). A reader
that waits at the end takes new events at once, without waking (:meth:`Feed._hand_out`).
"""

import asyncio
from typing import Final, Protocol

from gateway import metrics
from gateway.live.batch import Batch, StoredEvent
from shared.broker.keys import tail_key
from shared.broker.pipeline_connection import Command
from shared.protocol import events
from shared.protocol.ids import START, EventId, format_event_id, parse_event_id
from shared.protocol.waiting import Awaited

#: Number of events kept; a feed is cut back to this when it holds twice as many.
RING = 256
#: Limit of one write to a client, so that a slow client can take it within the write deadline. The event that reaches
#: the limit is still included.
MAX_BATCH_BYTES = 64 * 1024
#: Limit of one read of a tail.
MAX_EVENTS_PER_READ: Final = 256


_EMPTY: Final = Batch((), START)
#: Nearly every stream is taken for some milliseconds, and has no worker until the next sweep if its own has died.
_BRIEF: Final = frozenset({Awaited.TAKEN, Awaited.WORKER_LOST})
#: An entry as XREAD returns it: id, [field, value].
Entry = tuple[bytes, list[bytes]]


class Reader(Protocol):
    """Reader of a feed. ``cursor``: the last event that was handed to its client."""

    stream_id: str
    cursor: EventId

    def take(self, feed: "Feed", batch: Batch) -> bool:
        """Write the batch after the cursor to the client at once, and move the cursor. Return False if the client has
        no room; the reader then delivers the batch itself once it wakes."""
        ...


class Feed:
    """Recent events of one stream. ``tail_key`` and ``tail_cursor`` are the arguments of XREAD. The tail is not read
    until a reader that has caught up with the log provides the first cursor."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.tail_key = tail_key(stream_id).encode()
        self.tail_cursor = b""
        self.queue_position: int | None = None  # 1 is next, 0 is unknown; None once a worker has claimed the stream
        self.awaited = ""  # what Redis last reported to come before the next event; '' if nothing is known
        self._last_report = ""
        self.missing = False  # Redis has no state of the stream; a worker may restore it
        self.notified_at = 0.0  # when an append that is being timed was announced; 0 if none is
        self.compared_at: EventId | None = None  # position at the last comparison with Redis
        self.acknowledged = START  # the lead as last reported to Redis
        self.readers: set[Reader] = set()
        self.version = 0
        self._end = START  # the last event seen
        self._first = 0  # seq of the first event held
        self._events: list[StoredEvent] = []
        self._batches: dict[int, Batch] = {}  # handed out since the last event came, by the seq they follow
        self._ended = False
        self._waiters: dict[asyncio.Future[None], Reader | None] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def position(self) -> EventId | None:
        """Id of the last event seen."""
        return self._end if self.tail_cursor else None

    @property
    def has_ended(self) -> bool:
        """True if the last event seen is `done`."""
        return self._ended

    @property
    def is_live(self) -> bool:
        """True if the feed has readers and reads from the tail."""
        return bool(self.tail_cursor and self.readers)

    @property
    def lead(self) -> EventId:
        """Cursor of the leading reader, among readers in the readable epoch."""
        cursors = [reader.cursor for reader in self.readers]
        if self.tail_cursor:
            cursors = [cursor for cursor in cursors if cursor.epoch == self._end.epoch]
        return max(cursors, default=START)

    def rewind(self, at: EventId) -> None:
        """Discard all events and read the tail after ``at``. Readers at other cursors continue from the log."""
        self.tail_cursor = format_event_id(*at)
        self.awaited = self._last_report = ""
        self._clear(at)
        self.wake()

    def add(self, entries: list[Entry]) -> None:
        """Append the entries of an XREAD, without those that a message has brought since it was sent. A hole (the
        tail was trimmed) or a new epoch discards earlier events."""
        before = self._end
        for at, (_, stored) in entries:
            place = parse_event_id(at.decode())
            if place <= self._end:
                continue
            if place != (self._end.epoch, self._end.seq + 1) or self._ended:
                if place.epoch == self._end.epoch and self._events:
                    metrics.TAIL_HOLES.inc()
                self._clear(EventId(place.epoch, place.seq - 1))
            self._append([(at, stored)], place)
        if self._end != before:
            self._grow(before)

    def follow(self, epoch: int, first: int, new: list[bytes]) -> bool:
        """Append the events of a message, or nothing if the feed has them all. Return False if they neither continue
        the feed nor begin an epoch: then the tail must be read."""
        before, last = self._end, first + len(new) - 1
        if not self.tail_cursor:
            return False
        if epoch == before.epoch and last <= before.seq:
            return True
        if epoch > before.epoch and first == 1:
            self._clear(EventId(epoch, 0))
        elif epoch != before.epoch or first != before.seq + 1 or self._ended:
            return False
        numbered = [(format_event_id(epoch, seq), stored) for seq, stored in enumerate(new, first)]
        self._append(numbered, EventId(epoch, last))
        self._grow(before)
        return True

    def _append(self, new: list[StoredEvent], end: EventId) -> None:
        self._events += new
        self._end = end
        self.tail_cursor, last = new[-1]
        self._ended = events.is_done(last)

    def _grow(self, before: EventId) -> None:
        """Do what follows new events. ``before``: the position without them."""
        self.awaited = self._last_report = ""
        self._batches.clear()
        if len(self._events) > 2 * RING:
            cut = len(self._events) - RING
            del self._events[:cut]
            self._first += cut
        batch = None if self._ended else self.after(before)
        if batch is None or batch.reset or batch.last != self._end:
            self.wake()
        else:
            self._hand_out(batch, before)

    def _hand_out(self, batch: Batch, before: EventId) -> None:
        """Deliver the events after ``before`` to readers that wait there, and wake the others. A reader that wakes
        waits no longer: the next events must not overtake those that it still has to deliver."""
        self.version += 1
        for waiter, reader in self._waiters.items():
            if waiter.done():
                continue
            try:
                if reader is None or reader.cursor != before or not reader.take(self, batch):
                    waiter.set_result(None)
            except Exception as error:  # noqa: BLE001  ends this reader alone
                waiter.set_exception(error)

    def join_queue(self, queue_position: int) -> int:
        """Record that the stream waits for a worker. Return the best known queue position: the feed's own if there is
        one, else ``queue_position``."""
        if not self.queue_position:
            self.queue_position = queue_position
        return self.queue_position

    def set_queue_position(self, queue_position: int | None) -> None:
        """Set the queue position that Redis reports; wake readers if it has changed."""
        if self.queue_position != queue_position:
            self.queue_position = queue_position
            self.wake()

    def set_awaited(self, awaited: str, at: EventId) -> None:
        """Set the state that Redis reports after the event ``at``; wake readers if it has changed. Events may have
        come since the report: then it is outdated. A state that passes by itself counts from the second report on."""
        if self.position != at:
            return
        is_confirmed = awaited not in _BRIEF or awaited == self._last_report
        self._last_report = awaited
        if self.awaited != awaited and is_confirmed:
            self.awaited = awaited
            self.wake()

    def set_missing(self, *, missing: bool) -> None:
        """Record if Redis has lost the stream. Readers wake and check the log themselves."""
        if self.missing != missing:
            self.missing = missing
            self.wake()

    async def changed_since(self, version: int, reader: Reader | None = None) -> None:
        """Wait until the feed's version differs from ``version``. Read ``version`` before inspecting the feed, so
        that no wake-up is lost. Meanwhile ``reader`` takes new events without waking."""
        if self.version != version:
            return
        waiter = self._loop.create_future()
        self._waiters[waiter] = reader
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    def after(self, cursor: EventId) -> Batch | None:
        """Return the events that follow ``cursor``. None: the feed does not cover the cursor. A batch without events
        means that there is nothing new yet; its ``last`` has no meaning."""
        if not self.tail_cursor or self.missing:
            return None
        seq, end = cursor.seq, self._end
        if cursor.epoch != end.epoch:
            # A reader may meet a newer epoch in the log before the tail delivers it; then the log is authoritative.
            if cursor.epoch > end.epoch or self._first != 1 or not self._events:
                return None
            return self._batch(0, reset=cursor != START)
        if seq == end.seq:
            return _EMPTY
        if not self._first - 1 <= seq < end.seq:
            return None
        if (batch := self._batches.get(seq)) is None:
            batch = self._batches[seq] = self._batch(seq + 1 - self._first, reset=False)
        return batch

    def _batch(self, index: int, *, reset: bool) -> Batch:
        following, end = self._events[index : index + RING], self._end
        size = 0
        for count, (_, stored) in enumerate(following, 1):
            size += len(stored)
            if size >= MAX_BATCH_BYTES:
                del following[count:]
                break
        last = self._first + index + len(following) - 1
        if last == end.seq:
            return Batch(following, end, reset=reset, ended=self._ended)
        return Batch(following, EventId(end.epoch, last), reset=reset)

    def _clear(self, end: EventId) -> None:
        self._end = end
        self._first = end.seq + 1
        self._events.clear()
        self._batches.clear()
        self._ended = False

    def wake(self) -> None:
        """Wake every reader so that it inspects the feed again."""
        self.version += 1
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def read_command(feeds: list[Feed]) -> Command:
    """Return the command that reads the tails of some feeds, of each at most ``MAX_EVENTS_PER_READ``."""
    tails, cursors = [feed.tail_key for feed in feeds], [feed.tail_cursor for feed in feeds]
    return "XREAD", "COUNT", MAX_EVENTS_PER_READ, "STREAMS", *tails, *cursors
