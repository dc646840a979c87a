"""Encrypted reasoning of a Responses upstream, as items that go back to it."""

from typing import Any, Final

Data = dict[str, Any]
_MOST_PARTS: Final = 256
_PLACES: Final = {"summary_text": "summary", "reasoning_text": "content"}


class ReasoningItems:
    """Items of reasoning under construction. ``whole``: the complete ones. The text is in the reasoning events."""

    def __init__(self) -> None:
        self.whole: list[Data] = []
        self._item: Data | None = None
        self._parts: list[tuple[str, list[str]]] = []
        self._joint = ""

    def take(self, data: Data) -> None:
        """Take the data of one event of the family."""
        match data:
            case {"open": "reasoning", "item": dict(members)}:
                self._item, self._parts = members, []
                self._begin_part(data)
            case {"open": _}:
                self._item = None
            case {"part": _}:
                self._begin_part(data)
            case {"close": dict(members)} if self._item is not None:
                self._finish({**self._item, **members})
                self._item = None

    def add_text(self, text: str) -> None:
        if self._item is not None:
            joint, self._joint = self._joint, ""
            self._parts[-1][1].append(text.removeprefix(joint))

    def _begin_part(self, data: Data) -> None:
        self._joint = str(data.get("joint", ""))
        self._parts.append((str(data.get("part", "summary_text")), []))

    def _finish(self, members: Data) -> None:
        texts: Data = {"summary": []}
        for kind, pieces in self._parts:
            if pieces and kind in _PLACES:
                texts.setdefault(_PLACES[kind], []).append({"type": kind, "text": "".join(pieces)})
        if (item := reasoning_item({**members, **texts})) is not None:
            self.whole.append(item)


def reasoning_item(raw: object) -> Data | None:
    """Return an item of reasoning with its known members only, or None if its provider could not read it."""
    if not isinstance(raw, dict) or not isinstance(raw.get("encrypted_content"), str):
        return None
    item: Data = {"id": raw["id"]} if isinstance(raw.get("id"), str) else {}
    for kind, place in _PLACES.items():
        parts = raw.get(place)
        texts = (
            [part.get("text") for part in parts[:_MOST_PARTS] if isinstance(part, dict)]
            if isinstance(parts, list)
            else []
        )
        if texts or place == "summary":
            item[place] = [{"type": kind, "text": text} for text in texts if isinstance(text, str)]
    return {**item, "encrypted_content": raw["encrypted_content"]}
