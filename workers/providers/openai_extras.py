"""Members of a Chat Completions answer that have no canonical form, as :class:`shared.protocol.events.Extra`.

A structure drops members that it does not name, and a second decoding of every chunk would be slow. A chunk is
decoded again only if its shape is new: the number of its members, and which of the known ones it has. A shape without
unknown members is not looked at again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from shared.protocol.events import Extra
from workers.providers.base import ReasoningDelta
from workers.providers.framing import loose_json
from workers.providers.openai_chunks import Choice, Chunk, Delta
from workers.providers.usage_counts import member

FAMILY: Final = "openai"
#: Members of each object that canonical events carry, or that the gateway sets itself. ``obfuscation`` is padding.
_CHUNK: Final = frozenset({*Chunk.__struct_fields__, "id", "object", "created", "model", "obfuscation"})
_CHOICE: Final = frozenset(Choice.__struct_fields__)
_DELTA: Final = frozenset({*Delta.__struct_fields__, "role"})
_USAGE: Final = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_DETAILS: Final[Mapping[str, frozenset[str]]] = {
    "prompt_tokens_details": frozenset({"cached_tokens", "cache_write_tokens"}),
    "completion_tokens_details": frozenset({"reasoning_tokens"}),
}
_MOST_SHAPES: Final = 64
#: End of a member's name, also within texts.
MEMBER: Final = b'":'
_ONLY_TEXT: Final = 4
_TEXT_OF_DETAIL: Final = {"reasoning.text": "text", "reasoning.summary": "summary"}


class Extras:
    """Finds these members in one answer. ``plain``: number of members of the latest chunk that had only text."""

    def __init__(self) -> None:
        self._shapes: set[tuple[int, int]] = set()
        self.plain = -1
        self._latest: dict[str, dict[str, Any]] = {}  # members that a server repeats in every chunk
        self._detail: Any = None  # entry of `reasoning_details` whose text comes now
        self._place: str | None = None

    def of_chunk(self, chunk: Chunk, piece: bytes) -> Iterator[Extra]:
        """Return the members of the chunk itself, and all that the structures do not name."""
        if chunk.system_fingerprint is not None or chunk.service_tier is not None:
            named = {"system_fingerprint": chunk.system_fingerprint, "service_tier": chunk.service_tier}
            yield from self._changed("chunk", named)
        count, known = shape = _shape(chunk, piece)
        if shape not in self._shapes:
            found = list(self._unknown(loose_json(piece)))
            yield from found
            if found or len(self._shapes) == _MOST_SHAPES:
                return
            self._shapes.add(shape)
        if known == _ONLY_TEXT:
            self.plain = count

    def of_usage(self, usage: object) -> dict[str, Any]:
        """Return the members of a usage that are no canonical counts."""
        if not isinstance(usage, dict):
            return {}
        made = {name: value for name, value in usage.items() if name not in _USAGE and name not in _DETAILS}
        for name, known in _DETAILS.items():
            if isinstance(details := usage.get(name), dict):
                made[name] = {inner: count for inner, count in details.items() if inner not in known}
        return {name: value for name, value in made.items() if value not in (None, {})}

    def thoughts(self, delta: Delta) -> Iterator[Extra | ReasoningDelta]:
        """Return the reasoning text once, and what else there is about it. Servers that send it in several members
        send the same text in each."""
        texts = {"reasoning_content": delta.reasoning_content, "reasoning": delta.reasoning}
        texts["reasoning_text"] = delta.reasoning_text
        place = next((name for name, text in texts.items() if text and isinstance(text, str)), None)
        details = delta.reasoning_details if isinstance(delta.reasoning_details, list) else []
        in_details = "".join(map(_text_of, details))
        if place is not None and in_details != texts[place]:
            yield from self._placed(place, texts[place])
            if in_details:
                details = [detail for detail in details if not _text_of(detail)]
            yield from ([Extra(FAMILY, {"delta": {"reasoning_details": details}})] if details else [])
            return
        for detail in details:
            yield from self._of_detail(detail)

    def _placed(self, place: str, text: str) -> Iterator[Extra | ReasoningDelta]:
        """Return a text after the name of its place, once: some servers want it back there."""
        if place != self._place:
            self._place = place
            yield Extra(FAMILY, {"delta": {place: ""}})
        yield ReasoningDelta(text)

    def _of_detail(self, detail: Any) -> Iterator[Extra | ReasoningDelta]:
        text = _text_of(detail)
        if not text:
            yield Extra(FAMILY, {"delta": {"reasoning_details": [detail]}})
            return
        if not isinstance(detail.get("type"), str) or detail["type"] not in _TEXT_OF_DETAIL:
            yield ReasoningDelta(text)
            return
        signed = {"signature": detail["signature"]} if detail.get("signature") else {}
        bare = {n: v for n, v in detail.items() if n not in {_TEXT_OF_DETAIL[detail["type"]], "signature"}}
        if bare != self._detail:
            self._detail = bare
            yield Extra(FAMILY, {"delta": {"reasoning_details": [bare]}})
        yield ReasoningDelta(text)
        if signed:
            yield Extra(FAMILY, {"delta": {"reasoning_details": [bare | signed]}})

    def _unknown(self, whole: Any) -> Iterator[Extra]:
        if not isinstance(whole, dict):
            return
        yield from self._changed("chunk", _others(whole, _CHUNK))
        choices = whole.get("choices")
        for choice in choices[:1] if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                yield from self._changed("choice", _others(choice, _CHOICE))
                if members := _others(choice.get("delta") or choice.get("message"), _DELTA):
                    yield Extra(FAMILY, {"delta": members})

    def _changed(self, name: str, members: dict[str, Any]) -> Iterator[Extra]:
        """Return members that have another value than before: servers repeat these."""
        latest = self._latest.setdefault(name, {})
        new = {n: value for n, value in members.items() if value is not None and latest.get(n) != value}
        if new:
            latest |= new
            yield Extra(FAMILY, {name: new})


def is_only_text(chunk: Chunk) -> bool:
    """Return True for a chunk with a text, and nothing else that varies between chunks."""
    choice = chunk.choices[0] if chunk.choices else None
    if choice is None or choice.delta is None or choice.finish_reason is not None:
        return False
    return bool(choice.delta.content) and choice.delta.tool_calls is None


def _shape(chunk: Chunk, piece: bytes) -> tuple[int, int]:
    """Return a number for each thing that tells chunks apart: members, and the known ones among them."""
    choice = chunk.choices[0] if chunk.choices else None
    delta = choice.delta if choice is not None else None
    known = 0
    if choice is not None:
        known += (choice.finish_reason is not None) + 2 * (choice.logprobs is not None)
    if delta is not None:
        known += 4 * (delta.content is not None) + 8 * (delta.reasoning_content is not None)
        known += 16 * (delta.tool_calls is not None) + 32 * (delta.reasoning is not None)
    return piece.count(MEMBER), known


def _others(value: Any, known: frozenset[str]) -> dict[str, Any]:
    """Return the members of an object that are neither known nor empty."""
    if not isinstance(value, dict):
        return {}
    return {name: inner for name, inner in value.items() if name not in known and inner not in (None, [], {}, "")}


def _text_of(detail: Any) -> str:
    text = member(detail, "text") or member(detail, "summary")
    return text if isinstance(text, str) else ""
