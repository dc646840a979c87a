"""The messages of Vercel's AI SDK (``UIMessage``, whose parts are what a page shows) as the canonical request."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import checked, parse_json_object

#: What a request may say beyond the API, in ``body`` of the transport.
_SAME: Final = frozenset(
    {
        *("model", "provider", "temperature", "max_tokens", "stop", "tools", "tool_choice", "response_format"),
        *("top_p", "frequency_penalty", "presence_penalty", "parallel_tool_calls"),
        *("reasoning_effort", "metadata", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
_OWN: Final = frozenset({"id", "messages", "trigger", "messageId", "system"})
#: Of these nothing is sent to a provider.
_ONLY_SHOWN: Final = ("reasoning", "source-", "data-", "custom", "steering-message")
_LONGEST_ID: Final = 256
_DENIED: Final = "The user denied this call."
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """``message_id``: of the message that the answer goes on with, whose parts so far are ``shown``; None where it is
    to be a new one."""

    chat_id: str
    message_id: str | None
    shown: list[Body]


def parse(body: bytes, default_model: str | None) -> tuple[ChatRequest, ChatOptions]:
    """Raises :class:`InvalidJson` and :class:`InvalidRequest`, which names the field."""
    said = {name: value for name, value in parse_json_object(body).items() if value is not None}
    for name in said:
        if name not in _SAME | _OWN:
            raise InvalidRequest(f"{name[:64]}: not supported")
    chat_id = _id(said.get("id"), "id")
    if not isinstance(messages := said.get("messages"), list):
        raise InvalidRequest("messages: must be a list")
    asked = {name: value for name, value in said.items() if name in _SAME}
    if default_model is not None:
        asked.setdefault("model", default_model)
    system = [{"role": "system", "content": said["system"]}] if "system" in said else []
    asked["messages"] = [*system, *_messages(messages)]
    return checked(ChatRequest, asked), _wish(chat_id, messages)


def check_chat_id(chat_id: str) -> str:
    """Raises :class:`InvalidRequest`."""
    return _id(chat_id, "id")


def _wish(chat_id: str, messages: list[Any]) -> ChatOptions:
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and last.get("id"):
        return ChatOptions(chat_id, _id(last["id"], f"messages.{len(messages) - 1}.id"), last["parts"])
    return ChatOptions(chat_id, None, [])


def _id(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST_ID:
        raise InvalidRequest(f"{name}: must be a text of 1 to {_LONGEST_ID} characters")
    return value


def _messages(messages: list[Any]) -> Iterator[Body]:
    for at, message in enumerate(messages):
        place = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise InvalidRequest(f"{place}.role: must be system, user or assistant")
        parts = _parts(place, message.get("parts"))
        if message["role"] == "assistant":
            yield from _of_assistant(place, parts)
        elif content := [
            _part(f"{place}.parts.{i}", part)
            for i, part in enumerate(parts)
            if not part["type"].startswith(_ONLY_SHOWN)
        ]:
            yield {"role": message["role"], "content": content}


def _parts(place: str, parts: Any) -> list[Body]:
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("type"), str) for p in parts):
        raise InvalidRequest(f"{place}.parts: must be a list of objects with a type")
    return parts


def _part(place: str, part: Body) -> Body:
    match part["type"]:
        case "text":
            return {"type": "text", "text": part.get("text")}
        case "file" if str(part.get("mediaType", "")).startswith("image/"):
            return {"type": "image_url", "image_url": {"url": part.get("url")}}
        case "file":
            raise InvalidRequest(f"{place}.mediaType: only images are supported")
    raise InvalidRequest(f"{place}.type: not supported")


def _of_assistant(place: str, parts: list[Body]) -> Iterator[Body]:
    """One message a step, and one for each result of a tool behind it."""
    step: list[tuple[str, Body]] = []
    for at, part in enumerate(parts):
        if part["type"] == "step-start":
            yield from _step(step)
            step = []
        elif part["type"] != "file" and not part["type"].startswith(_ONLY_SHOWN):
            step.append((f"{place}.parts.{at}", part))
    yield from _step(step)


def _step(parts: list[tuple[str, Body]]) -> Iterator[Body]:
    """Calls without a result are left out: a user who stopped an answer goes on without it, and providers want a
    result for every call."""
    text: list[Body] = []
    calls: list[Body] = []
    results: list[Body] = []
    for place, part in parts:
        if not (part["type"].startswith("tool-") or part["type"] == "dynamic-tool"):
            text.append(_part(place, part))
        elif (result := _result(part)) is not None:
            call_id = part.get("toolCallId")
            name = part.get("toolName") or part["type"].removeprefix("tool-")
            function = {"name": name, "arguments": json.dumps(part.get("input") or {})}
            calls.append({"id": call_id, "type": "function", "function": function})
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
