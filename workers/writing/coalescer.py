"""Coalesces the deltas that wait for the next append into as few events as their kinds and the size limit allow."""

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from shared.protocol import events
from shared.protocol.events import encode
from shared.protocol.transcript import fold
from workers.providers.base import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from workers.writing.surrogates import ends_in_half, well_formed

_Joinable = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta
_JOINABLE = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)
#: Events that keep their place between the deltas before and after them.
_IN_PLACE = (events.Extra, events.Continued)
Written = Delta | events.Continued


class Coalescer:
    """Buffer of deltas. ``deltas`` and ``characters`` count everything received from the provider, ``extras`` the
    events that keep their place, ``made_bytes`` the events made of it; ``bytes`` is the approximate size of the
    deltas waiting now."""

    def __init__(self, max_event_bytes: int) -> None:
        self.deltas = 0
        self.extras = 0
        self.characters = 0
        self.made_bytes = 0
        self.bytes = 0
        self._max_event_bytes = max_event_bytes
        self._waiting: list[Any] = []  # joinable deltas, and extras if there are any
        self._has_extra = False
        self._whole_events: list[bytes] = []
        self._halves: dict[tuple[type[_Joinable], int], _Joinable] = {}
        self._counted: dict[type[_Joinable], int] = {TextDelta: 0, ReasoningDelta: 0, RefusalDelta: 0}

    def add(self, deltas: Sequence[Written]) -> None:
        self.deltas += len(deltas)
        for delta in deltas:
            if isinstance(delta, _JOINABLE):
                self.bytes += len(delta.text)
                self._waiting.append(delta)
            elif isinstance(delta, _IN_PLACE):
                self.bytes += len(encode(delta))
                self._waiting.append(delta)
                self._has_extra = True
                self.extras += 1
                self.deltas -= 1
            else:
                stored = encode(delta)
                self._whole_events.append(stored)
                self.bytes += len(stored)
                self.deltas -= 1
                if not isinstance(delta, events.Json):  # values repeat the text
                    self.made_bytes += len(stored)

    @property
    def is_split(self) -> bool:
        """True while half of a surrogate pair waits for the other one."""
        return bool(self._halves)

    def resume(self, written: Sequence[events.Event]) -> None:
        """Count the events of an answer that is continued."""
        transcript = fold(written)
        self.deltas, self.characters = transcript.deltas, transcript.characters
        for event in written:
            kind = _KINDS.get(type(event))
            if isinstance(event, events.Extra):
                self.extras += 1
            elif kind is not None and isinstance(event, (events.Token, events.Reasoning, events.Refusal)):
                self._counted[kind] += event.n
            if not isinstance(event, (events.Json, events.Start)):
                self.made_bytes += len(encode(event))

    def take(self, *, final: bool = False) -> list[bytes]:
        """Return the waiting deltas as events and clear the buffer. Half of a surrogate pair waits for the other one
        unless ``final``. Whole events follow all deltas that arrived with them, so they do not split joinable
        runs."""
        if (stored := self._one_text()) is not None:
            return [stored]
        waiting, whole_events = self._waiting, self._whole_events
        self._waiting, self._whole_events, self.bytes = [], [], 0
        made = self._with_extras(waiting) if self._has_extra else self._joinable_events(waiting)
        self._has_extra = False
        for half in list(self._halves.values()) if final else ():
            made += self._events(half, [])
        self.made_bytes += sum(map(len, made))
        return made + whole_events

    def _one_text(self) -> bytes | None:
        """Return the event of the only waiting delta, if that is a short text in ASCII: most are. None: leave all to
        :meth:`take`."""
        waiting = self._waiting
        if len(waiting) != 1 or type(waiting[0]) is not TextDelta or self._whole_events or self._halves:
            return None
        text = waiting[0].text
        if len(text) > self._max_event_bytes or not text.isascii():
            return None
        index = self._counted[TextDelta]
        self._waiting, self.bytes = [], 0
        self._counted[TextDelta] = index + 1
        self.characters += len(text)
        stored = encode(events.Token(text, index, 1))
        self.made_bytes += len(stored)
        return stored

    def _with_extras(self, waiting: list[Any]) -> list[bytes]:
        made: list[bytes] = []
        run: list[_Joinable] = []
        for delta in waiting:
            if isinstance(delta, _IN_PLACE):
                made += self._joinable_events(run)
                made.append(encode(delta))
                run = []
            else:
                run.append(delta)
        return made + self._joinable_events(run)

    def _joinable_events(self, waiting: Sequence[_Joinable]) -> list[bytes]:
        """Return the events of deltas without anything between them."""
        if not waiting:
            return []
        made: list[bytes] = []
        first, run, room = waiting[0], list[str](), self._max_event_bytes
        for delta in waiting:
            text = delta.text
            room -= len(text)
            if run and (room < 0 or not _continues(first, delta)):
                made += self._events(first, run)
                first, run, room = delta, [], self._max_event_bytes - len(text)
            run.append(text)
        return made + self._events(first, run)

    def _events(self, first: _Joinable, run: list[str]) -> list[bytes]:
        """Return one event, or several if a single delta exceeds the size limit. The first carries the count."""
        text, n, size = self._joined(first, run), len(run), self._max_event_bytes
        self.characters += len(text)
        if isinstance(first, ToolCallDelta):
            made = [encode(events.ToolCall(first.index, text[:size], first.id or UNSET, first.name or UNSET, n=n))]
            rest = range(size, len(text), size)
            return made + [encode(events.ToolCall(first.index, text[at : at + size], n=0)) for at in rest]
        kind = type(first)
        make, index = _EVENTS[kind], self._counted[kind]
        self._counted[kind] = index + n
        if len(text) <= size:
            return [encode(make(text, index, n))]
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        return [encode(make(piece, index, 0 if at else n)) for at, piece in enumerate(pieces)]

    def _joined(self, first: _Joinable, run: list[str]) -> str:
        text = "".join(run)
        if text.isascii() and not self._halves:
            return text
        key = (type(first), first.index if isinstance(first, ToolCallDelta) else 0)
        if (before := self._halves.pop(key, None)) is not None:
            text = before.text + text
        if run and ends_in_half(text):
            half = ToolCallDelta(first.index, text[-1]) if isinstance(first, ToolCallDelta) else type(first)(text[-1])
            self._halves[key] = half
            text = text[:-1]
        return well_formed(text)


_EVENTS: dict[type[_Joinable], type[events.Token | events.Reasoning | events.Refusal]] = {
    TextDelta: events.Token,
    ReasoningDelta: events.Reasoning,
    RefusalDelta: events.Refusal,
}
_KINDS: dict[type[events.Event], type[_Joinable]] = {event: delta for delta, event in _EVENTS.items()}


def _continues(first: _Joinable, delta: _Joinable) -> bool:
    if type(first) is not type(delta):
        return False
    return not isinstance(delta, ToolCallDelta) or (isinstance(first, ToolCallDelta) and first.index == delta.index)
