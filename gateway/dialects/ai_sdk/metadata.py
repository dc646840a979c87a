"""Provider data of a conversation, in ``providerMetadata`` of UI message parts and in its canonical form.

Signatures have the form that the SDK's own providers use: ``{"anthropic": {"signature": …}}``,
``{"anthropic": {"redactedData": …}}`` and ``{"google": {"thoughtSignature": …}}``. Other data is in ``headrace``:
packed reasoning, and members by provider family. A page sends all of it back unchanged.
"""

from typing import Any, Final

from gateway.dialects.reasoning import ReasoningFamily, extra_of, pack

Body = dict[str, Any]
_FAMILIES: Final = ("anthropic", "openai", "responses")


def signed(signature: str) -> Body:
    """Return the metadata of signed reasoning."""
    return {"anthropic": {"signature": signature}}


def redacted(data: str) -> Body:
    """Return the metadata of reasoning that the provider encrypted."""
    return {"anthropic": {"redactedData": data}}


def packed(family: ReasoningFamily, data: Body) -> Body:
    """Return the metadata of other reasoning that goes back."""
    return {"headrace": {"reasoning": pack(family, data)}}


def of_family(family: str, members: Body) -> Body:
    """Return the metadata of further members of a message or a call."""
    match members:
        case {"extra_content": {"google": {"thought_signature": str(signature), **more}, **others}, **rest} if not (
            more or others or rest
        ):
            return {"google": {"thoughtSignature": signature}}
    return {"headrace": {family: members}}


def joined(earlier: Body, later: Body) -> Body:
    """Join metadata: objects are joined, lists appended, other values replaced."""
    result = dict(earlier)
    for name, value in later.items():
        match earlier.get(name), value:
            case dict(first), dict(second):
                result[name] = joined(first, second)
            case list(first), list(second):
                result[name] = first + second
            case _:
                result[name] = value
    return result


def cache_control(part: Body) -> Body:
    """Return the canonical ``cache_control`` of a part, as the SDK's provider of Anthropic reads it; empty for
    none."""
    own = _member(part, "providerMetadata", "anthropic")
    mark = own.get("cacheControl", own.get("cache_control"))
    return {"cache_control": mark} if isinstance(mark, dict) else {}


def extra_of_call(part: Body) -> Body:
    """Return the canonical ``extra`` of a tool part's call; empty for none."""
    return _members(part, "callProviderMetadata")


def extra_of_message(parts: list[Body]) -> Body:
    """Return the canonical ``extra`` of an assistant's message with these parts of text and reasoning; empty for
    none."""
    extra: Body = extra_of(_member(part, "providerMetadata", "headrace").get("reasoning") for part in parts) or {}
    for part in parts:
        extra = joined(extra, _members(part, "providerMetadata"))
    blocks = [block for part in parts if part["type"] == "reasoning" for block in _thinking(part)]
    return joined(extra, {"anthropic": {"blocks": blocks}}) if blocks else extra


def _thinking(part: Body) -> list[Body]:
    """Return Anthropic's block of a reasoning part. Reasoning without a signature cannot go back."""
    match _member(part, "providerMetadata", "anthropic"):
        case {"signature": str(signature)} if isinstance(text := part.get("text", ""), str):
            return [{"type": "thinking", "thinking": text, "signature": signature}]
        case {"redactedData": str(data)}:
            return [{"type": "redacted_thinking", "data": data}]
    return []


def _members(part: Body, name: str) -> Body:
    own = _member(part, name, "headrace")
    found = {family: own[family] for family in _FAMILIES if isinstance(own.get(family), dict)}
    signature = _member(part, name, "google").get("thoughtSignature")
    if isinstance(signature, str):
        content = {"extra_content": {"google": {"thought_signature": signature}}}
        found["openai"] = found.get("openai", {}) | content
    return found


def _member(part: Body, *path: str) -> Body:
    """Return the object at ``path``; empty if it is none."""
    value: Any = part
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
