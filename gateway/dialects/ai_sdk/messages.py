"""UI messages, which have the parts that a page shows, as canonical messages."""

import json
from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.ai_sdk.media import file_part, result_content
from gateway.dialects.ai_sdk.metadata import cache_control, extra_of_call, extra_of_message
from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest

#: Prefixes of part types that are displayed only, and not sent to a provider.
_DISPLAY_ONLY: Final = ("reasoning-file", "source-", "data-", "custom", "steering-message")
_DENIED: Final = "The user denied this call."
Body = dict[str, Any]
#: A part and its path in the request.
_Part = tuple[str, Body]


def canonical_messages(messages: list[Any]) -> Iterator[Body]:
    """Yield the canonical messages of UI messages. Raises :class:`InvalidRequest`, which names the field."""
    for at, message in enumerate(messages):
        path = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise InvalidRequest(f"{path}.role: must be system, user or assistant")
        parts = _sent_parts(path, message.get("parts"))
        if message["role"] == "assistant":
            yield from _assistant_messages(parts)
        elif content := [_content(*part) for part in parts if part[1]["type"] != "reasoning"]:
            yield {"role": message["role"], "content": content}


def _sent_parts(path: str, parts: Any) -> list[_Part]:
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("type"), str) for p in parts):
        raise InvalidRequest(f"{path}.parts: must be a list of objects with a type")
    numbered = [(f"{path}.parts.{at}", part) for at, part in enumerate(parts)]
    return [(at, part) for at, part in numbered if not part["type"].startswith(_DISPLAY_ONLY)]


def _content(path: str, part: Body) -> Body:
    match part["type"]:
        case "text":
            return {"type": "text", "text": _text(path, part), **cache_control(part)}
        case "file":
            return file_part(path, part) | cache_control(part)
    raise InvalidRequest(f"{path}.type: not supported; remove the part")


def _text(path: str, part: Body) -> str:
    if not isinstance(text := part.get("text"), str):
        raise InvalidRequest(f"{path}.text: must be a string")
    return text


def _assistant_messages(parts: list[_Part]) -> Iterator[Body]:
    """Yield one message for each step, followed by one for each of its tool results."""
    step: list[_Part] = []
    for path, part in parts:
        if part["type"] == "step-start":
            yield from _step(step)
            step = []
        elif part["type"] != "file":
            step.append((path, part))
    yield from _step(step)


def _step(parts: list[_Part]) -> Iterator[Body]:
    """Yield the messages of one step. Calls without a result are left out: providers require a result for every call,
    and users may stop an answer and continue without it."""
    content: list[Body] = []
    calls: list[Body] = []
    results: list[Body] = []
    for path, part in parts:
        if part["type"].startswith("tool-") or part["type"] == "dynamic-tool":
            if (result := _result(path, part)) is not None:
                calls.append(_call(part))
                results.append({"role": "tool", "tool_call_id": part.get("toolCallId"), **result})
        elif part["type"] != "reasoning" and (part["type"] != "text" or _text(path, part)):
            content.append(_content(path, part))
    extra = extra_of_message([part for _, part in parts if part["type"] in ("text", "reasoning")])
    if content or calls:
        yield {
            "role": "assistant",
            **({"content": content} if content else {}),
            **({"tool_calls": calls} if calls else {}),
            **({"extra": extra} if extra else {}),
        }
    yield from results


def _call(part: Body) -> Body:
    name = part.get("toolName") or part["type"].removeprefix("tool-")
    extra = extra_of_call(part)
    call = tool_call(part.get("toolCallId"), name, json.dumps(part.get("input") or {}, ensure_ascii=False))
    return call | ({"extra": extra} if extra else {})


def _result(path: str, part: Body) -> Body | None:
    """Return the result's content, and its mark as an error; None while there is no result."""
    match part.get("state"):
        case "output-available":
            return {"content": result_content(f"{path}.output", part.get("output"))}
        case "output-error":
            return {"content": str(part.get("errorText") or "error"), "is_error": True}
        case "output-denied":
            return {"content": _DENIED}
    return None
