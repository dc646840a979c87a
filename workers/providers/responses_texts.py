"""Texts of one answer of Responses, and the items and parts that contain them.

A text is a canonical delta. Its item and its part are :class:`shared.protocol.events.Extra`, so that a client of this
API gets the same items. A text that a server sends only with the end of its part or its item is a delta then.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.protocol.events import Extra
from workers.providers.base import Delta, ReasoningDelta, RefusalDelta, TextDelta
from workers.providers.framing import as_text

FAMILY: Final = "responses"
#: Separates parts of reasoning, which are texts of their own, for clients that show them as one text.
JOINT: Final = "\n\n"
_DELTAS: Final[Mapping[str, type[TextDelta | ReasoningDelta | RefusalDelta]]] = {
    "output_text": TextDelta,
    "refusal": RefusalDelta,
    "summary_text": ReasoningDelta,
    "reasoning_text": ReasoningDelta,
}
_REASONING: Final = frozenset({"summary_text", "reasoning_text"})
_MEMBERS: Final = {"refusal": "refusal"}
#: Members of an item that canonical events carry, or that the gateway sets itself.
_CARRIED: Final = frozenset({"type", "role", "content", "summary", "status"})
Place = tuple[int, str, int]


class Texts:
    """Texts of one answer. ``place``: the item, the type of the part and its index, of the latest text."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self.has_refused = False
        self._members: dict[int, dict[str, Any]] = {}  # further members of items, as far as they were passed on
        self._opened: set[int] = set()
        self._open: int | None = None
        self._spoken: set[Place] = set()
        self._annotated: dict[Place, int] = {}
        self._joint = ""

    def add(self, key: int, item: Mapping[str, Any]) -> None:
        """Take an item that begins."""
        self._members[key] = _further(item)
        self._opened.discard(key)
        self._spoken = {place for place in self._spoken if place[0] != key}

    def interrupt(self) -> None:
        """Note that output of another kind follows."""
        self.place = self._open = None

    def delta(self, place: Place, text: object, logprobs: object = None) -> Iterator[Delta]:
        """Return one delta. Raises ValueError for one that is no text."""
        if not (text := as_text(text)):
            return
        kind = place[1]
        if place != self.place:
            yield from self._enter(place)
        if logprobs:
            yield Extra(FAMILY, {"logprobs": logprobs})
        self.has_refused = self.has_refused or kind == "refusal"
        joint, self._joint = self._joint, ""
        yield _DELTAS[kind](joint + text)

    def whole(self, place: Place, text: object) -> Iterator[Delta]:
        """Return the text of a part that has ended, unless its deltas have come."""
        if place not in self._spoken:
            yield from self.delta(place, text)

    def annotation(self, place: Place, annotation: object) -> Iterator[Delta]:
        """Return an annotation of a part."""
        self._annotated[place] = self._annotated.get(place, 0) + 1
        yield Extra(FAMILY, {"annotation": annotation})

    def whole_part(self, key: int, index: int, part: Mapping[str, Any]) -> Iterator[Delta]:
        """Return what has not been passed on of a part that has ended."""
        kind = str(part.get("type"))
        if kind not in _DELTAS:
            return
        place = (key, kind, index)
        yield from self.whole(place, part.get(_MEMBERS.get(kind, "text")))
        annotations = part.get("annotations")
        for annotation in annotations[self._annotated.get(place, 0) :] if isinstance(annotations, list) else ():
            yield from self.annotation(place, annotation)

    def finish(self, key: int, item: Mapping[str, Any]) -> Iterator[Delta]:
        """Return what has not been passed on of an item that has ended."""
        for index, part in _parts(item):
            yield from self.whole_part(key, index, part)
        members = _further(item)
        if key not in self._opened:
            if item.get("type") != "reasoning":
                return
            yield from self._enter_item(key, "reasoning", members)
        known = self._members.get(key, {})
        new = {name: value for name, value in members.items() if known.get(name) != value}
        if (status := item.get("status")) not in {None, "completed", "in_progress"}:
            new["status"] = status
        yield Extra(FAMILY, {"close": new})
        self.interrupt_item()

    def interrupt_item(self) -> None:
        """Note that the open item has ended. Reasoning that follows reasoning is a further part."""
        self._open = None
        if self.place is not None:
            self.place = (-1, *self.place[1:])

    def _enter(self, place: Place) -> Iterator[Delta]:
        """Return the item and the part that the next text belongs to."""
        key, kind, _ = place
        is_reasoning = kind in _REASONING
        if is_reasoning and self.place is not None and self.place[1] in _REASONING:
            self._joint = JOINT
        part: dict[str, Any] = {"part": kind} if self._open == key or kind == "reasoning_text" else {}
        if self._joint:
            part["joint"] = self._joint
        if self._open != key:
            opening = "reasoning" if is_reasoning else "message"
            yield from self._enter_item(key, opening, self._members.get(key, {}), part)
        else:
            yield Extra(FAMILY, part)
        self.place = place
        self._spoken.add(place)

    def _enter_item(
        self, key: int, kind: str, members: dict[str, Any], part: Mapping[str, Any] | None = None
    ) -> Iterator[Delta]:
        self._open = key
        self._opened.add(key)
        self._members[key] = members
        yield Extra(FAMILY, {"open": kind, "item": members, **(part or {})})


def _parts(item: Mapping[str, Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the parts of a message or of reasoning, with their indices."""
    for name in ("summary", "content"):
        value = item.get(name)
        for index, part in enumerate(value) if isinstance(value, list) else ():
            if isinstance(part, Mapping):
                yield index, part
        if isinstance(value, str) and value:
            kind = "output_text" if item.get("type") == "message" else "reasoning_text"
            yield 0, {"type": kind, "text": value}


def _further(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the further members of an item. Reasoning has its status too: not all servers send it."""
    further = {name: value for name, value in item.items() if name not in _CARRIED and value is not None}
    has_status = item.get("type") == "reasoning" and isinstance(item.get("status"), str)
    return further | ({"status": "in_progress"} if has_status else {})
