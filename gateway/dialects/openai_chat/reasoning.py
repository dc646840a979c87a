"""Reasoning of a Chat Completions message that goes back to the provider family that made it.

OpenAI's format has no member for it. OpenRouter's `reasoning_details`, LiteLLM's `thinking_blocks` and the
`reasoning_content` of DeepSeek are what clients send back. Reasoning of another family travels as an entry of
`reasoning_details`, with the format `headrace-v1`.
"""

from typing import Any, Final

from gateway.dialects.reasoning import FORMAT, Packed, extra_of, pack

_TEXTS: Final = ("reasoning_content", "reasoning", "reasoning_text")
MEMBERS: Final = frozenset({*_TEXTS, "reasoning_details", "thinking_blocks"})
#: Blocks of Anthropic's, each with the members that it must have.
_BLOCKS: Final = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}


def packed_detail(packed: Packed, index: int) -> dict[str, Any]:
    """Return reasoning of another family as an entry of `reasoning_details`."""
    return {"type": "reasoning.encrypted", "data": pack(*packed), "format": FORMAT, "index": index}


def reasoning_of(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the reasoning of an assistant's message by provider family (``Message.extra``)."""
    made: dict[str, dict[str, Any]] = {}
    blocks: list[Any] = []
    details: list[Any] = []
    for detail in _list(message.get("reasoning_details")):
        if _is_packed(detail):
            for family, data in (extra_of([detail.get("data")]) or {}).items():
                _merge(made.setdefault(family, {}), data)
        elif (block := _anthropic_block(detail)) is not None:
            blocks.append(block)
        else:
            details.append(detail)
    if blocks := blocks or [block for block in _list(message.get("thinking_blocks")) if _is_block(block)]:
        _merge(made.setdefault("anthropic", {}), {"blocks": blocks})
    own = {name: text for name in _TEXTS if isinstance(text := message.get(name), str) and text}
    if own or details:
        _merge(made.setdefault("openai", {}), own | ({"reasoning_details": details} if details else {}))
    return made


def without_packed(body: dict[str, Any]) -> dict[str, Any]:
    """Return the request without the entries that only Headrace reads."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not any(map(_has_packed, messages)):
        return body
    return body | {"messages": [_cleaned(message) if _has_packed(message) else message for message in messages]}


def _cleaned(message: dict[str, Any]) -> dict[str, Any]:
    kept = [detail for detail in message["reasoning_details"] if not _is_packed(detail)]
    if kept:
        return message | {"reasoning_details": kept}
    return {name: value for name, value in message.items() if name != "reasoning_details"}


def _has_packed(message: Any) -> bool:
    return isinstance(message, dict) and any(map(_is_packed, _list(message.get("reasoning_details"))))


def _is_packed(detail: Any) -> bool:
    return isinstance(detail, dict) and detail.get("format") == FORMAT


def _anthropic_block(detail: Any) -> dict[str, Any] | None:
    """Return the thinking block of an entry in OpenRouter's form for Anthropic's models."""
    if not isinstance(detail, dict) or not str(detail.get("format", "")).startswith("anthropic"):
        return None
    text, signature, data = detail.get("text"), detail.get("signature"), detail.get("data")
    if isinstance(signature, str):
        return {"type": "thinking", "thinking": text if isinstance(text, str) else "", "signature": signature}
    return {"type": "redacted_thinking", "data": data} if isinstance(data, str) else None


def _is_block(block: Any) -> bool:
    members = _BLOCKS.get(str(block.get("type"))) if isinstance(block, dict) else None
    return members is not None and all(isinstance(block.get(name), str) for name in members)


def _merge(into: dict[str, Any], data: dict[str, Any]) -> None:
    """Add members; lists are joined."""
    for name, value in data.items():
        before = into.get(name)
        into[name] = before + value if isinstance(before, list) and isinstance(value, list) else value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
