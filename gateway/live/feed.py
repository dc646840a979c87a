"""The recent events of one live stream: what its readers on this gateway share.

A contiguous run of one epoch. A reader owns nothing here but its
cursor; one that is not covered (it is behind the run, or of another epoch) reads the log instead.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from gateway import metrics
from gateway.live.batch import Batch, Numbered
from shared.broker.keys import tail_key
from shared.protocol import events
from shared.protocol.ids import START, EventId, format_event_id, parse_event_id

if TYPE_CHECKING:
    from gateway.live.subscription import Subscription

#: Events kept; the run is cut back to this when it is twice as long.
RING = 256
#: One write to a client is not much larger, so that a slow one can take it within the write deadline.
MOST_BYTES = 64 * 1024


_NOTHING: Final = Batch((), START)
#: As XREAD gives it: id, [field, value].
Entry = tuple[bytes, list[bytes]]


class Feed:
    """``tail_key`` and ``tail_cursor``: what to XREAD, after which id. Nothing is read until a reader that has caught
    up says where to begin."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.tail_key = tail_key(stream_id).encode()
        self.tail_cursor = b""
        self.place: int | None = None  # in the queue, 1 for the next, 0 for unknown; None once somebody has taken it
        self.missing = False  # Redis has no state: maybe a worker will heal it
        self.heard_at = 0.0  # of an append that is being timed, until a reader has it
        self.compared_at: EventId | None = None  # the position at the last comparison with Redis
        self.acknowledged = START  # the lead that Redis was last told
        self.readers: set[Subscription] = set()
        self.version = 0
        self._epoch = 0
        self._first = 0  # seq of the first event of the run
        self._last = 0  # seq of the last event seen
        self._next = b""  # the id that continues the run
        self._events: list[Numbered] = []
        self._runs: dict[int, Batch] = {}  # handed out since the last event came, by the seq they follow
        self._ended = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def position(self) -> EventId | None:
        """The last event seen."""
        return EventId(self._epoch, self._last) if self.tail_cursor else None

    @property
    def is_live(self) -> bool:
        """Somebody reads it, and from the tail."""
        return bool(self.tail_cursor and self.readers)

    @property
    def lead(self) -> EventId:
        """The cursor of the reader that is farthest, of those in the readable epoch."""
        cursors = [reader.cursor for reader in self.readers]
        if self.tail_cursor:
            cursors = [cursor for cursor in cursors if cursor.epoch == self._epoch]
        return max(cursors, default=START)

    def rewind(self, at: EventId) -> None:
        """Forget the run, if any, and read the tail from ``at`` on. Readers elsewhere find their way by the log."""
        self.tail_cursor = format_event_id(*at)
        self._clear(at.epoch, at.seq)
        self.wake()

    def add(self, entries: list[Entry]) -> None:
        """What an XREAD gave. A hole (the tail was trimmed) or a new epoch begins the run anew."""
        for at, (_, stored) in entries:
            if at != self._next or self._ended:
                epoch, seq = parse_event_id(at.decode())
                if epoch == self._epoch and self._events:
                    metrics.TAIL_HOLES.inc()
                self._clear(epoch, seq - 1)
            self._last += 1
            self._next = format_event_id(self._epoch, self._last + 1)
            self._events.append((at, stored))
            self._ended = events.is_done(stored)
        self.tail_cursor = entries[-1][0]
        self._runs.clear()
        if len(self._events) > 2 * RING:
            cut = len(self._events) - RING
            del self._events[:cut]
            self._first += cut
        self.wake()

    def wait_at(self, place: int) -> int:
        """The stream waits, at ``place`` as its reader heard; where it does as far as we know."""
        if not self.place:
            self.place = place
        return self.place

    def stands_at(self, place: int | None) -> None:
        """What Redis says of a stream that waits; readers are told where it has changed."""
        if self.place != place:
            self.place = place
            self.wake()

    def suspect(self, *, missing: bool) -> None:
        """Whether Redis has lost the stream; readers are woken to look for themselves."""
        if self.missing != missing:
            self.missing = missing
            self.wake()

    async def changed_since(self, version: int) -> None:
        """Until ``version`` is another than it was; taken before looking, it misses nothing."""
        if self.version != version:
            return
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def after(self, cursor: EventId) -> Batch | None:
        """What follows ``cursor``, maybe nothing, which has no ``last``; None where the run does not cover it."""
        if not self.tail_cursor or self.missing:
            return None
        epoch, seq = cursor
        if epoch != self._epoch:
            # A reader may have met a newer epoch in the log before the tail told us; then the log has the word.
            if epoch > self._epoch or self._first != 1 or not self._events:
                return None
            return self._run(0, reset=cursor != START)
        if seq == self._last:
            return _NOTHING
        if not self._first - 1 <= seq < self._last:
            return None
        if (run := self._runs.get(seq)) is None:
            run = self._runs[seq] = self._run(seq + 1 - self._first, reset=False)
        return run

    def _run(self, index: int, *, reset: bool) -> Batch:
        following = self._events[index : index + RING]
        size = 0
        for count, (_, stored) in enumerate(following, 1):
            size += len(stored)
            if size >= MOST_BYTES:
                del following[count:]
                break
        last = EventId(self._epoch, self._first + index + len(following) - 1)
        return Batch(following, last, reset=reset, ended=self._ended and last.seq == self._last)

    def _clear(self, epoch: int, last: int) -> None:
        self._epoch = epoch
        self._last = last
        self._next = format_event_id(epoch, last + 1)
        self._first = last + 1
        self._events.clear()
        self._runs.clear()
        self._ended = False

    def wake(self) -> None:
        """Let every reader look again."""
        self.version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
