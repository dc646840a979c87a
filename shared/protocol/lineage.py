"""Lineage of a log: the earlier epochs that it continues (rule E13)."""

from functools import cached_property
from typing import Final


class Lineage:
    """The epochs that a log continues, each with its last seq, in the order of both.

    ``text`` is what Redis stores, for example ``4:3 8123:10``: the events 1 to 3 are of epoch 4, 4 to 10 of epoch
    8123, and all others of the log's own epoch. ``_stream.lua`` reads the same text.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lineage) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Lineage({self.text!r})"

    @property
    def epochs(self) -> list[int]:
        return [epoch for epoch, _ in self._parts] if self.text else []

    @property
    def length(self) -> int:
        """Number of events that the log had when its own epoch began: the point of takeover."""
        return self._parts[-1][1] if self.text else 0

    def epoch_of(self, seq: int, epoch: int) -> int:
        """Return the epoch of an event of a log of ``epoch``."""
        if self.text:
            for earlier, last in self._parts:
                if seq <= last:
                    return earlier
        return epoch

    def continued(self, epoch: int, length: int) -> "Lineage":
        """Return the lineage of a log that continues one of this lineage, of ``epoch`` and with ``length`` events."""
        return Lineage(f"{self.text} {epoch}:{length}".lstrip()) if length > self.length else self

    @cached_property
    def _parts(self) -> list[tuple[int, int]]:
        pairs = (part.split(":") for part in self.text.split())
        return [(int(epoch), int(last)) for epoch, last in pairs]


NO_LINEAGE: Final = Lineage()
