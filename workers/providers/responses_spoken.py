"""Texts that the events of one answer have brought, for a server that sends the rest as a whole response."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from workers.providers.responses_events import ADDED, ARGUMENTS, INPUT, PARTS, Event
from workers.providers.responses_places import LostPlace
from workers.providers.usage_counts import whole_number

#: Members of an item that hold a text of its own, by the event of the text's deltas.
_OF_ITEM: Final = {ARGUMENTS: "arguments", INPUT: "input"}
_Key = tuple[int | None, str, int]


class Spoken:
    """Texts so far, by item, event of their deltas and part."""

    def __init__(self) -> None:
        self._texts: dict[_Key, list[str]] = {}

    def note(self, event: Event) -> None:
        kind = event.type
        if kind in PARTS or kind in _OF_ITEM:
            if isinstance(event.delta, str):
                self._texts.setdefault(_key_of(event), []).append(event.delta)
        elif kind == ADDED:
            item = whole_number(event.output_index)
            self._texts = {key: text for key, text in self._texts.items() if key[0] != item}

    def rest_of(self, output: object) -> Iterator[Mapping[str, Any]]:
        """Yield deltas with the rest of each text. Raises :class:`LostPlace` if a text does not begin as it did."""
        for (item, kind, part), pieces in self._texts.items():
            known, whole = "".join(pieces), _text_in(output, item, kind, part)
            if whole is None or not whole.startswith(known):
                raise LostPlace("the whole response has another text")
            if whole != known:
                index = "summary_index" if "summary" in kind else "content_index"
                yield {"type": kind, "output_index": item, index: part, "delta": whole[len(known) :]}


def _key_of(event: Event) -> _Key:
    index = event.content_index if event.content_index is not None else event.summary_index
    return whole_number(event.output_index), str(event.type), whole_number(index) or 0


def _text_in(output: object, at: int | None, kind: str, part: int) -> str | None:
    """Return the whole text, or None if the response has none at this place."""
    item = _at(output, at)
    if kind in _OF_ITEM:
        text = item.get(_OF_ITEM[kind])
    else:
        found = _at(item.get("summary" if PARTS[kind] == "summary_text" else "content"), part)
        text = (
            found.get("refusal" if PARTS[kind] == "refusal" else "text") if found.get("type") == PARTS[kind] else None
        )
    return text if isinstance(text, str) else None


def _at(values: object, index: int | None) -> Mapping[str, Any]:
    is_inside = isinstance(values, list) and index is not None and 0 <= index < len(values)
    value = values[index] if is_inside else None  # type: ignore[index]
    return value if isinstance(value, Mapping) else {}
