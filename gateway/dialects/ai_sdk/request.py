"""Parser of requests from Vercel's AI SDK. A message is a ``UIMessage``, with the parts that a page shows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_json_object, validate

#: Fields of the canonical request that ``body`` of the SDK's transport may add.
_UNCHANGED: Final = frozenset(
    {
        *("model", "provider", "temperature", "max_tokens", "stop", "tools", "tool_choice", "response_format"),
        *("top_p", "frequency_penalty", "presence_penalty", "parallel_tool_calls"),
        *("reasoning_effort", "metadata", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
_TRANSLATED: Final = frozenset({"id", "messages", "trigger", "messageId", "system"})
#: Prefixes of part types that are displayed only, and not sent to a provider.
_DISPLAY_ONLY: Final = ("reasoning", "source-", "data-", "custom", "steering-message")
_MAX_ID_LENGTH: Final = 256
_DENIED: Final = "The user denied this call."
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """``message_id``: the message that the answer continues; None starts a new message. ``shown``: that message's
    parts so far."""

    chat_id: str
    message_id: str | None
    shown: list[Body]


def parse(body: bytes, default_model: str | None) -> tuple[ChatRequest, ChatOptions]:
    """Return the canonical request and the chat's options. Raises :class:`InvalidJson` and :class:`InvalidRequest`,
    which names the field."""
    raw = {name: value for name, value in parse_json_object(body).items() if value is not None}
    for name in raw:
        if name not in _UNCHANGED | _TRANSLATED:
            raise InvalidRequest(f"{name[:64]}: not supported; remove the field")
    chat_id = _id(raw.get("id"), "id")
    if not isinstance(messages := raw.get("messages"), list):
        raise InvalidRequest("messages: must be a list")
    fields = {name: value for name, value in raw.items() if name in _UNCHANGED}
    if default_model is not None:
        fields.setdefault("model", default_model)
    system = [{"role": "system", "content": raw["system"]}] if "system" in raw else []
    fields["messages"] = [*system, *_messages(messages)]
    return validate(ChatRequest, fields), _options(chat_id, messages)


def check_chat_id(chat_id: str) -> str:
    """Return a valid chat id unchanged. Raises :class:`InvalidRequest`."""
    return _id(chat_id, "id")


def _options(chat_id: str, messages: list[Any]) -> ChatOptions:
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and last.get("id"):
        return ChatOptions(chat_id, _id(last["id"], f"messages.{len(messages) - 1}.id"), last["parts"])
    return ChatOptions(chat_id, None, [])


def _id(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID_LENGTH:
        raise InvalidRequest(f"{name}: must be a string of 1 to {_MAX_ID_LENGTH} characters")
    return value


def _messages(messages: list[Any]) -> Iterator[Body]:
    for at, message in enumerate(messages):
        path = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise InvalidRequest(f"{path}.role: must be system, user or assistant")
        parts = _parts(path, message.get("parts"))
        if message["role"] == "assistant":
            yield from _assistant_messages(path, parts)
        elif content := [
            _part(f"{path}.parts.{i}", part)
            for i, part in enumerate(parts)
            if not part["type"].startswith(_DISPLAY_ONLY)
        ]:
            yield {"role": message["role"], "content": content}


def _parts(path: str, parts: Any) -> list[Body]:
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("type"), str) for p in parts):
        raise InvalidRequest(f"{path}.parts: must be a list of objects with a type")
    return parts


def _part(path: str, part: Body) -> Body:
    match part["type"]:
        case "text":
            return {"type": "text", "text": part.get("text")}
        case "file" if str(part.get("mediaType", "")).startswith("image/"):
            return {"type": "image_url", "image_url": {"url": part.get("url")}}
        case "file":
            raise InvalidRequest(f"{path}.mediaType: only images are supported; remove the part")
    raise InvalidRequest(f"{path}.type: not supported; remove the part")


def _assistant_messages(path: str, parts: list[Body]) -> Iterator[Body]:
    """Yield one message for each step, followed by one for each of its tool results."""
    step: list[tuple[str, Body]] = []
    for at, part in enumerate(parts):
        if part["type"] == "step-start":
            yield from _step(step)
            step = []
        elif part["type"] != "file" and not part["type"].startswith(_DISPLAY_ONLY):
            step.append((f"{path}.parts.{at}", part))
    yield from _step(step)


def _step(parts: list[tuple[str, Body]]) -> Iterator[Body]:
    """Yield the messages of one step. Calls without a result are left out: providers require a result for every call,
    and users may stop an answer and continue without it."""
    text: list[Body] = []
    calls: list[Body] = []
    results: list[Body] = []
    for path, part in parts:
        if not (part["type"].startswith("tool-") or part["type"] == "dynamic-tool"):
            text.append(_part(path, part))
        elif (result := _result(part)) is not None:
            call_id = part.get("toolCallId")
            name = part.get("toolName") or part["type"].removeprefix("tool-")
            calls.append(tool_call(call_id, name, json.dumps(part.get("input") or {})))
            results.append({"role": "tool", "tool_call_id": call_id, "content": result})
    if text or calls:
        yield {
            "role": "assistant",
            **({"content": text} if text else {}),
            **({"tool_calls": calls} if calls else {}),
        }
    yield from results


def _result(part: Body) -> str | None:
    match part.get("state"):
        case "output-available":
            output = part.get("output")
            return output if isinstance(output, str) else json.dumps(output)
        case "output-error":
            return str(part.get("errorText") or "error")
        case "output-denied":
            return _DENIED
    return None
