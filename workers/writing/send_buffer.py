"""Every event of one attempt, kept until the end, and how far the log has them.

An event once frozen never changes: same seq, same bytes at every re-send.
"""

from collections.abc import Sequence

#: Events sent in one append; more wait for the next.
MOST_EVENTS = 64


class SendBuffer:
    """``acknowledged``: the last seq known to be in the log. ``unsent_bytes``: of those after it."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.unsent_bytes = 0
        self._highest_acknowledged = 0
        self._all: list[bytes] = []
        self._closing = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def next_seq(self) -> int:
        """Of the first that the log does not have."""
        return self.acknowledged + 1

    @property
    def is_resend(self) -> bool:
        """Whether the log had what comes next before."""
        return self.acknowledged < self._highest_acknowledged

    @property
    def open(self) -> list[bytes]:
        """All but the closing ones."""
        return self._all[: len(self._all) - self._closing]

    @property
    def unsent(self) -> list[bytes]:
        return self._all[self.acknowledged :]

    @property
    def next_batch(self) -> list[bytes]:
        return self._all[self.acknowledged : self.acknowledged + MOST_EVENTS]

    def freeze(self, stored: Sequence[bytes]) -> None:
        self._all += stored
        self.unsent_bytes += sum(map(len, stored))

    def acknowledge(self, last_seq: int) -> None:
        """The log ends at ``last_seq``, which may be less than it was."""
        self.acknowledged = last_seq
        self._highest_acknowledged = max(self._highest_acknowledged, last_seq)
        self.unsent_bytes = sum(map(len, self._all[last_seq:]))

    def close(self, closing: Sequence[bytes]) -> None:
        """Append the closing events, `done` the last."""
        self._all += closing
        self._closing = len(closing)

    def reopen(self) -> None:
        """Withdraw them."""
        del self._all[len(self._all) - self._closing :]
        self._closing = 0
