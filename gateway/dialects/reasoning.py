"""Reasoning of one provider family in the dialect of another.

A provider wants the reasoning of an earlier answer back, with its signature. A dialect of another family has no place
for that, so its client gets one opaque text and returns it in the next request. The text is no secret: it holds what
the same client sees in a dialect of the provider's family.
"""

import base64
import binascii
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic_core import from_json, to_json

from gateway.dialects.reasoning_items import ReasoningItems, reasoning_item
from shared.protocol import events
from shared.protocol.events import Event
from shared.response_items import PACKED_PREFIX
from shared.schemas.json_bounds import has_more_values

#: ``format`` of an entry of ``reasoning_details`` that holds a packed text.
FORMAT: Final = "headrace-v1"
#: Decompression of a text takes at most this many times its size, and its values are in proportion to it too, so a
#: small body can cause neither much work nor many objects.
_MOST_GROWTH: Final = 4
_CHARACTERS_PER_VALUE: Final = 8
_FREE_VALUES: Final = 16
#: Members of a message that hold reasoning at OpenAI's followers.
OPENAI_MEMBERS: Final = ("reasoning_content", "reasoning", "reasoning_text", "reasoning_details")
#: Member of packed data: members of calls by their id, such as the signatures of their thoughts.
CALLS: Final = "calls"
_CALL_MEMBERS: Final = frozenset({"extra_content"})
_BLOCK_MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
}
#: Members of an entry of ``reasoning_details`` that arrive in fragments.
_FRAGMENTS: Final = frozenset({"text", "summary", "data"})

ReasoningFamily = Literal["anthropic", "openai", "responses"]
Data = dict[str, Any]
Packed = tuple[ReasoningFamily, Data]


def pack(family: ReasoningFamily, data: Data) -> str:
    """Return the opaque text of a family's reasoning."""
    raw = to_json([family, data])
    encoded = base64.urlsafe_b64encode(zlib.compress(raw))
    if not _is_bounded(raw, encoded):
        encoded = base64.urlsafe_b64encode(zlib.compress(raw, 0))
    return PACKED_PREFIX + encoded.rstrip(b"=").decode()


def unpack(text: object) -> Packed | None:
    """Return the family and the data of a packed text, or None for any other value."""
    if not isinstance(text, str) or not text.startswith(PACKED_PREFIX):
        return None
    try:
        value = from_json(_decompressed(text.removeprefix(PACKED_PREFIX)), allow_inf_nan=False)
    except (binascii.Error, zlib.error, ValueError):
        return None
    match value:
        case ["anthropic", {"blocks": list(blocks)}]:
            kept = [block for raw in blocks if (block := _block(raw)) is not None]
            return ("anthropic", {"blocks": kept}) if kept else None
        case ["openai", dict(members)]:
            known = {name: members[name] for name in OPENAI_MEMBERS if _is_reasoning(name, members.get(name))}
            if calls := _calls(members.get(CALLS)):
                known[CALLS] = calls
            return ("openai", known) if known else None
        case ["responses", {"items": list(items)}]:
            read = [item for raw in items if (item := reasoning_item(raw)) is not None]
            return ("responses", {"items": read}) if read else None
    return None


def extra_of(texts: Iterable[object]) -> dict[str, Data] | None:
    """Return ``Message.extra`` of the packed texts of one message, or None if there are none."""
    extra: dict[str, Data] = {}
    for packed in map(unpack, texts):
        if packed is not None:
            family, data = packed
            if data := {name: value for name, value in data.items() if name != CALLS}:
                extra[family] = _joined(extra.get(family, {}), data)
    return extra or None


def extras_of_calls(texts: Iterable[object]) -> dict[str, dict[str, Data]]:
    """Return ``ToolCall.extra`` of the packed texts of one message, by the ids of the calls."""
    unpacked = [packed for text in texts if (packed := unpack(text)) is not None]
    return {id: {family: members} for family, data in unpacked for id, members in data.get(CALLS, {}).items()}


class ReasoningCollector:
    """Collects the reasoning of an answer, for a dialect of another family than the provider's."""

    def __init__(self) -> None:
        self._clear()

    def take(self, event: Event) -> Packed | None:
        """Take the next event. Return the reasoning that ends before it, if the provider wants that back."""
        match event:
            case events.Reasoning():
                self._text.append(event.text)
                self._items.add_text(event.text)
            case events.Extra("anthropic", data):
                self._take_anthropic(data)
            case events.Extra("openai", {"delta": dict(members)}):
                self._take_openai(members)
            case events.Extra("openai", {"call": int(index), "members": dict(members)}):
                self._members_of_calls.setdefault(index, {}).update(members)
            case events.Extra("responses", data):
                self._items.take(data)
            case events.Start():
                self._clear()  # another attempt begins
            case events.Extra():
                pass
            case events.ToolCall(id=str(call_id)):
                self._call_ids[event.index] = call_id
                return self._finish()
            case _ if self._has_reasoning or self._members_of_calls:
                return self._finish()
        return None

    @property
    def _has_reasoning(self) -> bool:
        return bool(self._text or self._blocks or self._details or self._members or self._items.whole)

    def _clear(self) -> None:
        self._clear_reasoning()
        self._call_ids: dict[int, str] = {}
        self._members_of_calls: dict[int, Data] = {}

    def _clear_reasoning(self) -> None:
        self._items = ReasoningItems()
        self._text: list[str] = []
        self._blocks: list[Data] = []
        self._details: list[Data] = []
        self._members: Data = {}

    def _finish(self) -> Packed | None:
        packed, calls = self._finish_reasoning(), self._finish_calls()
        if not calls:
            return packed
        return ("openai", {**(packed[1] if packed is not None and packed[0] == "openai" else {}), CALLS: calls})

    def _finish_calls(self) -> Data:
        """Return the members of the calls whose id is known, by it."""
        known = [index for index in self._members_of_calls if index in self._call_ids]
        return {self._call_ids[index]: self._members_of_calls.pop(index) for index in known}

    def _finish_reasoning(self) -> Packed | None:
        if not self._has_reasoning:
            return None
        text, blocks, details, members = "".join(self._text), self._blocks, self._details, self._members
        items = self._items.whole
        self._clear_reasoning()
        if items:
            return ("responses", {"items": items})
        if blocks:
            signed = [block for block in blocks if block["type"] != "thinking" or block["signature"]]
            return ("anthropic", {"blocks": signed}) if signed else None
        if details:
            return ("openai", {**members, "reasoning_details": _with_text(details, text)})
        # A member without its text names the place of the reasoning: the text is in the reasoning events.
        placed = {name: value or text for name, value in members.items() if value or text}
        return ("openai", placed) if placed else None

    def _take_anthropic(self, data: Data) -> None:
        match data:
            case {"open": "thinking"}:
                self._close_block("")
            case {"in": "thinking", "delta": {"type": "signature_delta", "signature": str(signature)}}:
                self._close_block(signature)
            case {"block": {"type": "redacted_thinking"} as block} if (known := _block(block)) is not None:
                self._close_block("")
                self._blocks.append(known)

    def _close_block(self, signature: str) -> None:
        """End the open block of thinking. A further fragment of its signature continues it."""
        if self._text or not self._blocks:
            text = "".join(self._text)
            self._text.clear()
            if text or signature:
                self._blocks.append({"type": "thinking", "thinking": text, "signature": signature})
        elif signature:
            latest = self._blocks[-1]
            if latest["type"] == "thinking":
                latest["signature"] += signature
            else:
                self._blocks.append({"type": "thinking", "thinking": "", "signature": signature})

    def _take_openai(self, members: Mapping[str, Any]) -> None:
        for name in OPENAI_MEMBERS:
            value = members.get(name)
            if isinstance(value, str):
                self._members[name] = self._members.get(name, "") + value
        details = members.get("reasoning_details")
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict):
                self._take_detail(detail)

    def _take_detail(self, detail: Data) -> None:
        latest = self._details[-1] if self._details else None
        same = latest is not None and all(latest.get(name) == detail.get(name) for name in ("type", "index"))
        if latest is None or not same:
            self._details.append(dict(detail))
            return
        for name, value in detail.items():
            earlier = latest.get(name)
            joins = name in _FRAGMENTS and isinstance(earlier, str) and isinstance(value, str)
            if joins or value is not None:
                latest[name] = earlier + value if joins else value


def _decompressed(encoded: str) -> bytes:
    compressed = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    decompressor = zlib.decompressobj()
    raw = decompressor.decompress(compressed, _MOST_GROWTH * len(encoded) + 1)
    if not decompressor.eof or decompressor.unconsumed_tail or not _is_bounded(raw, encoded):
        raise ValueError("too large, or cut")
    return raw


def _is_bounded(raw: bytes, encoded: str | bytes) -> bool:
    """Return True for a text that may be parsed: ``raw`` of ``encoded``."""
    most_values = _FREE_VALUES + len(encoded) // _CHARACTERS_PER_VALUE
    return len(raw) <= _MOST_GROWTH * len(encoded) and not has_more_values(raw, most_values)


def _block(raw: object) -> Data | None:
    """Return a block of reasoning with its known members only."""
    if not isinstance(raw, dict) or not isinstance(kind := raw.get("type"), str):
        return None
    names = _BLOCK_MEMBERS.get(kind)
    if names is None or not all(isinstance(raw.get(name), str) for name in names):
        return None
    return {"type": kind, **{name: raw[name] for name in names}}


def _is_reasoning(name: str, value: object) -> bool:
    if name != "reasoning_details":
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(detail, dict) for detail in value)


def _calls(raw: object) -> dict[str, Data]:
    """Return the members of calls with their known members only."""
    if not isinstance(raw, dict):
        return {}
    known = {
        id: {name: value for name, value in members.items() if name in _CALL_MEMBERS and isinstance(value, dict)}
        for id, members in raw.items()
        if isinstance(members, dict)
    }
    return {id: members for id, members in known.items() if members}


def _joined(earlier: Data, later: Data) -> Data:
    return {**earlier, **{name: earlier[name] + value if name in earlier else value for name, value in later.items()}}


def _with_text(details: list[Data], text: str) -> list[Data]:
    """Return the details with the text of the reasoning events, if the only one that should have a text lacks it."""
    places = {"reasoning.text": "text", "reasoning.summary": "summary"}
    bare = [detail for detail in details if (name := places.get(str(detail.get("type")))) and not detail.get(name)]
    if len(bare) == 1 and text:
        bare[0][places[str(bare[0]["type"])]] = text
    return details
