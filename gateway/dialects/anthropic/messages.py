"""Messages of a Messages request as canonical messages."""

import json
from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.anthropic.blocks import MOST_PARTS, blocks_of, in_batches, part_of, parts_of, with_cache_control
from gateway.dialects.anthropic.specific_paths import SpecificPaths
from gateway.dialects.reasoning import extra_of, extras_of_calls, unpack
from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest

#: A tuple, not a set: a request may have a list here, and lists are not hashable.
_ROLES: Final = ("user", "assistant", "system")
_LONGEST_ID: Final = 256
_THINKING: Final = frozenset({"thinking", "redacted_thinking"})
Body = dict[str, Any]


def messages_of(messages: Any, specific: SpecificPaths) -> Iterator[tuple[str, Body]]:
    """Yield canonical messages, each with the path of its message. Raises :class:`InvalidRequest`."""
    if not isinstance(messages, list):
        raise InvalidRequest('messages: must be a list such as [{"role": "user", "content": "…"}]')
    for at, message in enumerate(messages):
        path = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise InvalidRequest(f"{path}.role: must be user, assistant or system")
        specific.note_others(f"{path}.", message, {"role", "content"})
        content = message.get("content")
        match message["role"]:
            case "system":
                made: Iterator[Body] = system_of(f"{path}.content", content, specific)
            case "user":
                made = _user_messages(f"{path}.content", content, specific)
            case _:
                made = _assistant_messages(f"{path}.content", content, specific)
        for each in made:
            yield path, each


def system_of(path: str, content: Any, specific: SpecificPaths) -> Iterator[Body]:
    """Yield the system messages of a prompt. ``path``: that of the prompt. Raises :class:`InvalidRequest`."""
    if isinstance(content, str):
        if content:
            yield {"role": "system", "content": content}
        return
    parts: list[Body] = []
    for block_path, block in blocks_of(path, content):
        if block["type"] == "text":
            parts += part_of(block_path, block, specific)
        else:
            specific.note(block_path)
    for some in in_batches(parts):
        yield {"role": "system", "content": some}


def _user_messages(path: str, content: Any, specific: SpecificPaths) -> Iterator[Body]:
    """Yield the tool results as messages of their own, then the remaining blocks."""
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    parts: list[Body] = []
    has_result = False
    for block_path, block in blocks_of(path, content):
        if block["type"] == "tool_result":
            has_result = True
            yield _result(block_path, block, specific)
        else:
            parts += part_of(block_path, block, specific)
    for some in in_batches(parts):
        yield {"role": "user", "content": some}
    if not parts and not has_result:
        yield {"role": "user", "content": ""}


def _result(path: str, block: Body, specific: SpecificPaths) -> Body:
    specific.note_others(f"{path}.", block, {"type", "tool_use_id", "content", "is_error", "cache_control"})
    content = block.get("content")
    parts = [] if content is None else parts_of(f"{path}.content", content, specific)
    if parts:
        parts[-1] = with_cache_control(path, parts[-1], block, specific)
    elif block.get("cache_control") is not None:
        specific.note(f"{path}.cache_control")
    is_text = len(parts) == 1 and parts[0].keys() == {"type", "text"} and isinstance(content, str)
    made: Body = {
        "role": "tool",
        "tool_call_id": _id(f"{path}.tool_use_id", block.get("tool_use_id")),
        "content": (content if is_text else parts[:MOST_PARTS]) or "",
    }
    if isinstance(block.get("is_error"), bool):
        made["is_error"] = block["is_error"]
    return made


def _assistant_messages(path: str, content: Any, specific: SpecificPaths) -> Iterator[Body]:
    if isinstance(content, str):
        yield {"role": "assistant", "content": content}
        return
    calls: list[Body] = []
    parts: list[Body] = []
    thinking: list[Body] = []
    for block_path, block in blocks_of(path, content):
        if block["type"] == "tool_use":
            calls.append(_call(block_path, block, specific))
        elif block["type"] in _THINKING:
            thinking.append(block)
        elif block["type"] == "text":
            parts += part_of(block_path, block, specific)
        else:
            specific.note(block_path)
    extras = extras_of_calls(block.get("signature") for block in thinking)
    calls = [call | ({"extra": extras[call["id"]]} if call["id"] in extras else {}) for call in calls]
    head, *others = list(in_batches(parts)) or [[]]
    message: Body = {"role": "assistant", **_reasoning(thinking)}
    while others:
        yield message | {"content": head}
        message, (head, *others) = {"role": "assistant"}, others
    if head or not calls:
        message["content"] = head or ""
    yield message | ({"tool_calls": calls} if calls else {})


def _call(path: str, block: Body, specific: SpecificPaths) -> Body:
    specific.note_others(f"{path}.", block, {"type", "id", "name", "input"})
    if not isinstance(name := block.get("name"), str) or not name:
        raise InvalidRequest(f"{path}.name: must be a text")
    return tool_call(
        _id(f"{path}.id", block.get("id")), name, json.dumps(block.get("input") or {}, ensure_ascii=False)
    )


def _id(path: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        raise InvalidRequest(f"{path}: must be a text of 1 to {_LONGEST_ID} characters")
    return value


def _reasoning(blocks: list[Body]) -> Body:
    """Return ``extra`` of a message. Thinking without a signature goes back to no provider."""
    packed = [text for block in blocks if unpack(text := block.get("signature")) is not None]
    extra: Body = extra_of(packed) or {}
    if own := [block for block in blocks if not is_ours(block)]:
        extra["anthropic"] = {"blocks": own}
    return {"extra": extra} if extra else {}


def is_ours(block: Body) -> bool:
    """Return True for thinking that Anthropic did not sign: its signature is empty or a packed text."""
    signature = block.get("signature")
    return block.get("type") == "thinking" and (signature == "" or unpack(signature) is not None)


def without_ours(messages: list[Any]) -> list[Any]:
    """Return the messages without thinking that Anthropic did not sign, and without messages of nothing else."""
    kept: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list) or not any(isinstance(block, dict) and is_ours(block) for block in content):
            kept.append(message)
        elif blocks := [block for block in content if not (isinstance(block, dict) and is_ours(block))]:
            kept.append({**message, "content": blocks})
    return kept
