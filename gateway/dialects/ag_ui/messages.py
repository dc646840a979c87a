"""Messages of AG-UI as canonical messages."""

from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.ai_sdk.media import canonical_file
from gateway.dialects.field_paths import Placed
from gateway.dialects.reasoning import extra_of, extras_of_calls
from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest

Body = dict[str, Any]
_ROLES: Final = ("developer", "system", "user", "assistant", "tool", "reasoning", "activity")
#: The client's names of members.
_NAMES: Final = {"tool_calls": "toolCalls", "tool_call_id": "toolCallId"}
_MEDIA: Final = ("image", "audio", "video", "document")
_REMEDY: Final = "send an http or https address, or data in base64 with its mimeType"


def canonical_messages(messages: list[Any]) -> Iterator[Body]:
    """Yield the canonical messages. Reasoning goes with the assistant message after it; messages that only a page
    shows are left out. Raises :class:`InvalidRequest`, which names the field."""
    reasoning: list[Any] = []
    for at, message in enumerate(messages):
        path = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise InvalidRequest(f"{path}.role: must be one of {', '.join(_ROLES)}")
        match message["role"]:
            case "reasoning":
                reasoning.append(message.get("encryptedValue"))
            case "assistant":
                yield from _assistant(path, message, reasoning)
                reasoning = []
            case "tool":
                yield Placed(path, _tool(path, message), _NAMES)
            case "user":
                yield Placed(path, {"role": "user", "content": _content(path, message.get("content"))})
            case "developer" | "system":
                text = _text(f"{path}.content", message.get("content"))
                yield Placed(path, {"role": "system", "content": text})


def _assistant(path: str, message: Body, reasoning: list[Any]) -> Iterator[Body]:
    """Yield the message, unless nothing of it goes to a provider."""
    text = message.get("content")
    if text is not None:
        _text(f"{path}.content", text)
    raw_calls = message.get("toolCalls") or []
    if not isinstance(raw_calls, list):
        raise InvalidRequest(f"{path}.toolCalls: must be a list")
    packed = [*reasoning, message.get("encryptedValue")]
    packed += [call.get("encryptedValue") for call in raw_calls if isinstance(call, dict)]
    extra, extras = extra_of(packed), extras_of_calls(packed)
    calls = [_call(f"{path}.toolCalls.{at}", call, extras) for at, call in enumerate(raw_calls)]
    if text or calls:
        members = {
            "role": "assistant",
            **({"content": text} if text else {}),
            **({"tool_calls": calls} if calls else {}),
            **({"extra": extra} if extra else {}),
        }
        yield Placed(path, members, _NAMES)


def _call(path: str, call: Any, extras: dict[str, Body]) -> Body:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise InvalidRequest(f"{path}.function: must be an object")
    made = tool_call(call.get("id"), function.get("name"), function.get("arguments"))
    extra = extras.get(str(call.get("id")))
    return made | ({"extra": extra} if extra else {})


def _tool(path: str, message: Body) -> Body:
    content, error = _content(path, message.get("content")), message.get("error")
    result = {"role": "tool", "tool_call_id": message.get("toolCallId"), "content": content or error or ""}
    return result | ({"is_error": True} if error else {})


def _content(path: str, content: Any) -> str | list[Body]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{path}.content: must be a string or a list of parts")
    return [_part(f"{path}.content.{at}", part) for at, part in enumerate(content)]


def _part(path: str, part: Any) -> Body:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return {"type": "text", "text": _text(f"{path}.text", part.get("text"))}
    if kind == "binary":  # of versions before 1.0
        url, data = part.get("url"), part.get("data")
        source = {"type": "url", "value": url} if url is not None else {"type": "data", "value": data}
        return _file(path, source | {"mimeType": part.get("mimeType")}, part.get("filename"), "mimeType")
    if kind in _MEDIA:
        return _file(f"{path}.source", part.get("source"), None, kind)
    raise InvalidRequest(f"{path}.type: not supported; remove the part")


def _file(path: str, source: Any, filename: Any, kind: str) -> Body:
    """Return the canonical part of a file. ``kind``: of the part, for an address without a media type."""
    match source:
        case {"type": "url", "value": str(url)}:
            media_type = source.get("mimeType")
            return canonical_file(path, media_type if isinstance(media_type, str) else f"{kind}/*", url, filename)
        case {"type": "data", "value": str(data), "mimeType": str(media_type)}:
            return canonical_file(path, media_type, f"data:{media_type};base64,{data}", filename)
    raise InvalidRequest(f"{path}: not supported; {_REMEDY}")


def _text(path: str, text: Any) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}: must be a string")
    return text
