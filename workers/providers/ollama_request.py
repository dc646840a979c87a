"""Converts the canonical request to that of Ollama's ``/api/chat``."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.errors import ProviderError
from shared.schemas import ChatRequest, ImagePart, Message, NamedToolChoice

Body = dict[str, object]
#: Nearest value for each effort that Ollama does not have.
_THINK: Final[Mapping[str, object]] = {"none": False, "minimal": "low", "xhigh": "high", "max": "high"}


def body_of(request: ChatRequest) -> Body:
    """Return the body. Raises :class:`ProviderError` for features that Ollama does not have."""
    optional: dict[str, object | None] = {
        "options": _options(request) or None,
        "tools": _tools(request),
        "format": _format(request),
        "think": _THINK.get(request.reasoning_effort or "", request.reasoning_effort),
    }
    return {
        "model": request.model,
        "messages": _messages(request.messages),
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _options(request: ChatRequest) -> Body:
    options = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "num_predict": request.max_tokens,
        "stop": request.stop,
    }
    return {name: value for name, value in options.items() if value is not None}


def _tools(request: ChatRequest) -> list[Body] | None:
    if request.tools and request.parallel_tool_calls is False:
        raise _unsupported("parallel_tool_calls", "is not supported; omit it")
    if request.tool_choice == "required" or isinstance(request.tool_choice, NamedToolChoice):
        raise _unsupported("tool_choice", "must be auto or none")
    if request.tools is None or request.tool_choice == "none":
        return None
    return [tool.model_dump(mode="json", exclude_none=True) for tool in request.tools]


def _format(request: ChatRequest) -> str | dict[str, Any] | None:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    return "json" if wanted.json_schema is None else wanted.json_schema.schema_


def _messages(messages: Sequence[Message]) -> list[Body]:
    """Convert the messages. Tool results name the tool instead of the call's id."""
    names: dict[str, str] = {}
    made = []
    for message in messages:
        made.append(_message(message, names))
        names |= {call.id: call.function.name for call in message.tool_calls or ()}
    return made


def _message(message: Message, names: Mapping[str, str]) -> Body:
    made: Body = {"role": message.role, "content": message.text}
    if message.tool_call_id is not None:
        made["tool_name"] = names[message.tool_call_id]
    if message.tool_calls:
        made["tool_calls"] = [
            {"function": {"name": c.function.name, "arguments": c.function.parsed}} for c in message.tool_calls
        ]
    if images := [_image(part) for part in message.parts if isinstance(part, ImagePart)]:
        made["images"] = images
    return made


def _image(part: ImagePart) -> str:
    head, _, data = part.image_url.url.partition(";base64,")
    if not head.startswith("data:"):
        raise _unsupported("messages", "must have images as data URLs")
    try:
        b64decode(data, validate=True)
    except ValueError:
        raise _unsupported("messages", "must have images in base64") from None
    return data


def _unsupported(param: str, rule: str) -> ProviderError:
    message = f"{param} {rule} for provider ollama"
    return ProviderError("provider_rejected", message, provider_code="unsupported_value", param=param)
