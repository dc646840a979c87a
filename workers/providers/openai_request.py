"""Builds the request to a Chat Completions server: from the client's original, or from the canonical fields.

An original keeps every member and their order. Only its addressing (``model``, ``stream``, ``stream_options``) is
replaced, and what no such server accepts is repaired (:mod:`workers.providers.openai_repairs`).
"""

from collections.abc import Mapping
from typing import Any, Final

from shared.counterparts import add_counterparts
from shared.schemas import ChatRequest, FilePart, ImagePart, Message, TextPart, Tool
from shared.schemas.chat import original_for
from workers.providers.openai_repairs import OpenAINames, repaired
from workers.providers.refused_fields import Body

#: Fields that have the same name and meaning in the canonical request.
_UNCHANGED: Final = {
    "model",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "user",
    "frequency_penalty",
    "presence_penalty",
    "parallel_tool_calls",
    "stop",
    "tool_choice",
    "response_format",
    "reasoning_effort",
}
#: Fields that a client's ``provider_options`` do not replace.
_FIXED: Final = frozenset({"model", "messages", "stream", "stream_options", "n"})
#: Most tokens of reasoning for each effort below ``high``.
EFFORTS: Final = ((1024, "minimal"), (4096, "low"), (16_384, "medium"))


def body_of(request: ChatRequest, limit: str, names: OpenAINames, *, has_stream_options: bool = True) -> Body:
    """Return the body. ``limit``: name of the token limit, for canonical requests. ``has_stream_options``: the server
    accepts them."""
    original = original_for(request, "openai")
    body = _from_canonical(request, limit) if original is None else dict(original.body)
    client_options = body.get("stream_options")
    usage = {"include_usage": True}
    body |= {
        "model": request.model,
        "stream": True,
        "stream_options": client_options | usage if isinstance(client_options, dict) else usage,
    }
    if not has_stream_options:
        del body["stream_options"]
    body |= {n: v for n, v in (request.provider_options or {}).get("openai", {}).items() if n not in _FIXED}
    return repaired(body, names)


def _from_canonical(request: ChatRequest, limit: str) -> Body:
    body: Body = request.model_dump(mode="json", include=_UNCHANGED, exclude_none=True)
    body["messages"] = [_message(message) for message in request.messages]
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    else:
        body.pop("parallel_tool_calls", None)
    if request.max_tokens is not None:
        body[limit] = request.max_tokens
    if request.reasoning_tokens is not None and request.reasoning_effort is None:
        tokens = request.reasoning_tokens
        body["reasoning_effort"] = next((effort for most, effort in EFFORTS if tokens <= most), "high")
    return add_counterparts(body, request, "openai")


def _tool(tool: Tool) -> Body:
    return tool.model_dump(mode="json", exclude_none=True, exclude={"cache_control"})


def _message(message: Message) -> Body:
    """Return a message, with the members that a server of this family gave it."""
    made: Body = {"role": message.role}
    if message.content is not None:
        is_text = isinstance(message.content, str)
        made["content"] = message.content if is_text else [_part(part) for part in message.parts]
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            made[name] = value
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": call.function.model_dump()} | _own(call.extra)
            for call in message.tool_calls
        ]
    return made | {name: value for name, value in _own(message.extra).items() if name not in made}


def _own(extra: Mapping[Any, dict[str, Any]] | None) -> dict[str, Any]:
    return (extra or {}).get("openai", {})


def _part(part: TextPart | ImagePart | FilePart) -> Body:
    """Return a part. This API has no files by address, so one becomes a text with the address."""
    if isinstance(part, FilePart) and part.file.file_url is not None:
        label = part.file.filename or "file"
        return {"type": "text", "text": f"{label}: {part.file.file_url}"}
    return part.model_dump(mode="json", exclude_none=True, exclude={"cache_control"})
