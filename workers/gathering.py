"""Deltas that wait for the next append, joined into as few events as their kinds and the size limit allow."""

from collections.abc import Sequence

from shared.protocol import events
from workers.providers.base import Delta, ReasoningDelta, TextDelta


class Gathering:
    """``deltas`` counts all that ever came; ``bytes`` is about what waits now."""

    def __init__(self, max_event_bytes: int) -> None:
        self.deltas = 0
        self.bytes = 0
        self._max_event_bytes = max_event_bytes
        self._waiting: list[Delta] = []
        self._counted: dict[type, int] = {TextDelta: 0, ReasoningDelta: 0}

    def add(self, deltas: Sequence[Delta]) -> None:
        self.deltas += len(deltas)
        for delta in deltas:
            self.bytes += len(delta.text)
        self._waiting += deltas

    def take(self) -> list[bytes]:
        """The events that what waits makes, and forget it."""
        if not self._waiting:
            return []
        waiting, self._waiting, self.bytes = self._waiting, [], 0
        made: list[bytes] = []
        run: list[str] = []
        size, kind = 0, type(waiting[0])
        for delta in waiting:
            if run and (type(delta) is not kind or size + len(delta.text) > self._max_event_bytes):
                made += self._event(kind, run)
                run, size = [], 0
            kind = type(delta)
            run.append(delta.text)
            size += len(delta.text)
        return made + self._event(kind, run)

    def _event(self, kind: type, run: list[str]) -> list[bytes]:
        """One event, or several where a single delta is larger than an event may be; the first carries the count."""
        text, index, n = _well_formed("".join(run)), self._counted[kind], len(run)
        self._counted[kind] += n
        pieces = [text[i : i + self._max_event_bytes] for i in range(0, len(text), self._max_event_bytes)] or [""]
        counts = [n, *[0] * (len(pieces) - 1)]
        make = events.Token if kind is TextDelta else events.Reasoning
        return [events.encode(make(piece, index, count)) for piece, count in zip(pieces, counts, strict=True)]


def _well_formed(text: str) -> str:
    """Halves of a surrogate pair joined, lone ones replaced: JSON from a provider may hold them, UTF-8 cannot."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
