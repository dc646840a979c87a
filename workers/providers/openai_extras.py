"""Members of a Chat Completions answer that have no canonical form, as :class:`shared.protocol.events.Extra`."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from shared.protocol.events import Extra
from workers.providers.base import ReasoningDelta
from workers.providers.framing import decode
from workers.providers.openai_chunks import Choice, Chunk, Delta
from workers.providers.openai_constants import Constants, Place
from workers.providers.openai_template import PADDING
from workers.providers.usage_counts import member

FAMILY: Final = "openai"
#: Members of each object that canonical events carry, or that the gateway sets itself.
_CHUNK: Final = frozenset({*Chunk.__struct_fields__, "id", "object", "created", "model", *PADDING})
_CHOICE: Final = frozenset(Choice.__struct_fields__)
_DELTA: Final = frozenset({*Delta.__struct_fields__, "role"})
_USAGE: Final = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
_DETAILS: Final[Mapping[str, frozenset[str]]] = {
    "prompt_tokens_details": frozenset({"cached_tokens", "cache_write_tokens"}),
    "completion_tokens_details": frozenset({"reasoning_tokens"}),
}
_EMPTY: Final[tuple[object, ...]] = (None, [], {}, "")
_TEXT_OF_DETAIL: Final = {"reasoning.text": "text", "reasoning.summary": "summary"}
_decoder: Final = msgspec.json.Decoder()


class Extras:
    """Finds these members in one answer."""

    def __init__(self) -> None:
        self._constants = Constants()
        self._named: dict[str, Any] = {}  # fingerprint and tier, which the gateway repeats in every chunk
        self._detail: Any = None  # entry of `reasoning_details` whose text comes now
        self._place: str | None = None

    def of_chunk(self, chunk: Chunk, piece: bytes) -> list[Extra]:
        """Return the members of the chunk itself, and all that the structures do not name."""
        new: dict[str, Any] = {}
        if chunk.system_fingerprint is not None or chunk.service_tier is not None:
            named = {"system_fingerprint": chunk.system_fingerprint, "service_tier": chunk.service_tier}
            new = {n: value for n, value in named.items() if value is not None and self._named.get(n) != value}
            self._named |= new
        each, own = self._constants.take(_unknown(decode(_decoder, piece)), has_output=_has_output(chunk))
        if new:
            own["chunk"] = new | own.get("chunk", {})
        found = [] if each is None else [Extra(FAMILY, {"each": each})]
        return [*found, Extra(FAMILY, own)] if own else found

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


def _has_output(chunk: Chunk) -> bool:
    choice = chunk.choices[0] if chunk.choices else None
    delta = (choice.delta or choice.message) if choice is not None else None
    return delta is not None and bool(delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls)


def _unknown(whole: Any) -> dict[Place, Any]:
    """Return the members of a chunk, its first choice and its delta that are neither named by the structures nor
    empty."""
    if not isinstance(whole, dict):
        return {}
    choices = whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    found: dict[Place, Any] = {}
    delta = choice.get("delta") or choice.get("message")
    for at, made, known in (("chunk", whole, _CHUNK), ("choice", choice, _CHOICE), ("delta", delta, _DELTA)):
        if isinstance(made, dict) and not made.keys() <= known:
            found |= {(at, name): value for name, value in made.items() if name not in known and value not in _EMPTY}
    return found


def _text_of(detail: Any) -> str:
    text = member(detail, "text") or member(detail, "summary")
    return text if isinstance(text, str) else ""
