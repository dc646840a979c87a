"""All events of one answer, kept until the end, and the position up to which the log has them.

A frozen event never changes: it has the same seq and the same bytes at every re-send.
"""

from collections.abc import Sequence

from shared.protocol.chunks import TAIL_BYTES, Chunks, compress, leaving

#: Further events wait for the next append.
MAX_EVENTS_PER_APPEND = 64


class SendBuffer:
    """Events and their positions. ``acknowledged``: the last seq known to be in the log. ``unsent_bytes``: the size
    of the events after it. ``packed``: the last seq in the log's chunks, as far as this worker can
    tell. ``continued``: the number of events that an earlier epoch wrote (rule E13). ``cap``: of the tail."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self.continued = 0
        self.acknowledged = 0
        self.unsent_bytes = 0
        self.packed = 0
        self._batch = min(cap, MAX_EVENTS_PER_APPEND)
        self._bytes = 0
        self._packed_bytes = 0
        self._highest_acknowledged = 0
        self._all: list[bytes] = []
        self._closing = 0
        self._chunks: Chunks | None = None
        self._cursors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def is_resend(self) -> bool:
        """True if the log once had the next event and lost it."""
        return self.acknowledged < self._highest_acknowledged

    @property
    def is_closed(self) -> bool:
        """True while the closing events are there: nothing may follow them."""
        return self._closing > 0

    @property
    def open(self) -> list[bytes]:
        """All events except the closing ones."""
        return self._all[: len(self._all) - self._closing]

    @property
    def unsent(self) -> list[bytes]:
        return self._all[self.acknowledged :]

    @property
    def next_batch(self) -> list[bytes]:
        # Events of an earlier epoch go together, because the fast append would write them as this one's.
        return self._all[self.acknowledged : max(self.acknowledged + self._batch, self.continued)]

    @property
    def chunks(self) -> Chunks:
        """All events, compressed, once the closing ones are there."""
        if self._chunks is None:
            self._chunks = compress(self._all)
        return self._chunks

    def to_pack(self, following: int) -> list[bytes]:
        """Return the events that have to go into chunks before the tail has room for ``following`` more."""
        in_tail = self.acknowledged - self.packed
        if in_tail + following <= self._cap and self._bytes - self.unsent_bytes - self._packed_bytes <= TAIL_BYTES:
            return []
        held = self._all[self.packed : self.acknowledged]
        return held[: leaving(self._cap, held, following)]

    def set_packed(self, last_seq: int) -> None:
        """Set the last seq in the log's chunks, by a reply."""
        if last_seq < self.packed:  # Redis lost chunks
            self.packed = self._packed_bytes = 0
        self._packed_bytes += sum(map(len, self._all[self.packed : last_seq]))
        self.packed = last_seq

    def resume(self, stored: Sequence[bytes], cursor: str) -> None:
        """Begin with the events of a log that is continued. ``cursor``: as for :meth:`freeze`."""
        self._all = list(stored)
        self._bytes = sum(map(len, stored))
        self._cursors[len(stored)] = cursor
        self.continued = self.acknowledged = self._highest_acknowledged = len(stored)

    def freeze(self, stored: Sequence[bytes], cursor: str = "") -> None:
        """Add events. ``cursor``: the place in the provider's stored answer after them."""
        self._all += stored
        size = sum(map(len, stored))
        self.unsent_bytes += size
        self._bytes += size
        if cursor and stored:
            self._cursors[len(self._all)] = cursor

    def cursor_at(self, seq: int) -> str:
        """Return the place in the provider's stored answer after an event; ``-`` if that is unknown, ``""`` if the
        provider stores nothing."""
        return self._cursors.get(seq, "-") if self._cursors else ""

    def forget_cursors(self) -> None:
        """Make the places after all events so far unknown, if there are any."""
        if self._cursors:
            self._cursors = {0: "-"}

    def in_log(self, last_seq: int) -> int:
        """Return the last seq in the log by the reply to a call that does not know of continued events: they are
        there, as long as the log has none of this epoch."""
        return last_seq or self.continued

    def acknowledge(self, last_seq: int) -> None:
        """Set the end of the log to ``last_seq``, which may be lower than before."""
        self.acknowledged = last_seq
        if last_seq > self._highest_acknowledged:  # noqa: PLR1730  max() takes three times as long
            self._highest_acknowledged = last_seq
        self.unsent_bytes = sum(map(len, self._all[last_seq:])) if last_seq < len(self._all) else 0

    def close(self, closing: Sequence[bytes]) -> None:
        """Append the closing events. `done` is the last."""
        self._all += closing
        self._closing = len(closing)

    def reopen(self) -> None:
        """Withdraw the closing events."""
        del self._all[len(self._all) - self._closing :]
        self._closing = 0
        self._chunks = None
