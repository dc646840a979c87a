"""The recent events of one live stream: what its readers on this gateway share.

A contiguous run of one epoch, each event rendered once however many read it. A reader owns nothing here but its
cursor; one that is not covered (it is behind the run, or of another epoch) reads the log instead.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.dialects import native
from shared.protocol import events
from shared.protocol.ids import START, EventId

if TYPE_CHECKING:
    from gateway.subscription import Subscription

#: Events kept; the run is cut back to this when it is twice as long.
RING = 256
#: One write to a client is not much larger, so that a slow one can take it within the write deadline.
MOST_BYTES = 64 * 1024


class Feed:
    """``position``: the last event seen, None until a reader that has caught up says where to begin."""

    def __init__(self, stream_id: str) -> None:
        self.stream_id = stream_id
        self.position: EventId | None = None
        self.missing = False  # Redis has no state: maybe a worker will heal it
        self.compared_at: EventId | None = None  # the position at the last comparison with Redis
        self.acknowledged = START  # the lead that Redis was last told
        self.readers: set[Subscription] = set()
        self.version = 0
        self._first = 0  # seq of the first event of the run
        self._frames: list[bytes] = []
        self._start: bytes | None = None  # the stored `start`, while it is in the run
        self._ended = False
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def lead(self) -> EventId:
        """The cursor of the reader that is farthest, of those in the readable epoch."""
        cursors = [reader.cursor for reader in self.readers]
        if self.position is not None:
            cursors = [cursor for cursor in cursors if cursor.epoch == self.position.epoch]
        return max(cursors, default=START)

    def begin(self, at: EventId) -> None:
        """Read the tail from here on; nothing if it is being read already."""
        if self.position is None:
            self.rewind(at)

    def rewind(self, at: EventId) -> None:
        """Forget the run and go on from ``at``. Readers elsewhere find their way by the log."""
        self.position = at
        self._clear(at.seq + 1)
        self.wake()

    def add(self, entries: list[tuple[EventId, bytes]]) -> None:
        """What an XREAD gave. A hole (the tail was trimmed) or a new epoch begins the run anew."""
        for at, stored in entries:
            if self.position is None or at != (self.position.epoch, self.position.seq + 1) or self._ended:
                self._clear(at.seq)
            if events.is_start(stored):
                self._start = stored
            self._frames.append(native.frame(at, stored))
            self._ended = events.is_done(stored)
            self.position = at
        if len(self._frames) > 2 * RING:
            cut = len(self._frames) - RING
            del self._frames[:cut]
            self._first += cut
            self._start = None
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
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def after(self, cursor: EventId) -> "Run | None":
        """What follows ``cursor``, maybe nothing; None where the run does not cover it."""
        if self.position is None or self.missing:
            return None
        if cursor.epoch != self.position.epoch:
            # A reader may have met a newer epoch in the log before the tail told us; then the log has the word.
            if cursor.epoch > self.position.epoch or self._first != 1 or not self._frames:
                return None
            return self._run(0, self.position.epoch, reset=cursor != START)
        if not self._first - 1 <= cursor.seq <= self.position.seq:
            return None
        return self._run(cursor.seq + 1 - self._first, cursor.epoch, reset=False)

    def _run(self, index: int, epoch: int, *, reset: bool) -> "Run":
        frames, size = [], 0
        for frame in self._frames[index : index + RING]:
            frames.append(frame)
            size += len(frame)
            if size >= MOST_BYTES:
                break
        last = EventId(epoch, self._first + index + len(frames) - 1)  # counted before anything synthetic
        ended = self._ended and last == self.position
        if reset and self._start is not None:
            frames[0] = native.reset_frame(EventId(epoch, 1), self._start)
        elif reset:
            frames.insert(0, native.bare_reset(self.stream_id))
        return Run(b"".join(frames), last, ended=ended)

    def _clear(self, first: int) -> None:
        self._first = first
        self._frames.clear()
        self._start = None
        self._ended = False

    def wake(self) -> None:
        """Let every reader look again."""
        self.version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Run:
    """Rendered events up to ``last``; ``ended`` where `done` is among them."""

    __slots__ = ("chunk", "ended", "last")

    def __init__(self, chunk: bytes, last: EventId, *, ended: bool) -> None:
        self.chunk = chunk
        self.last = last
        self.ended = ended
