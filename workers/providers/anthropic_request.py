"""Converts the canonical request to Anthropic's."""

from collections.abc import Sequence
from itertools import groupby
from typing import Final, Literal

from shared.errors import ProviderError
from shared.schemas import ChatRequest, FilePart, ImagePart, Message, NamedToolChoice, TextPart, Tool

#: The API requires a limit. This one is within every model's own and enough for most chat answers.
DEFAULT_MAX_TOKENS: Final = 4096
#: Stand-in for `json_object`: a forced tool whose input is the answer. The API's structured output requires a schema
#: that names every member.
JSON_TOOL: Final = "json"
_JSON_TOOL: Final = {
    "name": JSON_TOOL,
    "description": "Takes the answer.",
    "input_schema": {"type": "object"},
}

Body = dict[str, object]


def body_of(request: ChatRequest) -> Body:
    if request.frequency_penalty or request.presence_penalty:
        raise ProviderError(
            "provider_rejected",
            "frequency_penalty and presence_penalty are not supported by provider anthropic; omit them",
            provider_code="unsupported_parameter",
            param="frequency_penalty" if request.frequency_penalty else "presence_penalty",
        )
    optional: dict[str, object | None] = {
        "system": "\n\n".join(m.text for m in request.messages if m.role == "system") or None,
        "stop_sequences": request.stop or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [_tool(tool) for tool in request.tools] if request.tools else None,
        "tool_choice": _tool_choice(request),
        "thinking": {"type": "adaptive", "display": "summarized"} if _may_think(request) else None,
        "output_config": _output_config(request) or None,
    }
    if answers_by_tool(request):
        optional["tools"] = [_JSON_TOOL]
        optional["tool_choice"] = {"type": "tool", "name": JSON_TOOL}
    return {
        "model": request.model,
        "messages": _messages([m for m in request.messages if m.role != "system"]),
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def answers_by_tool(request: ChatRequest) -> bool:
    """Return True if the JSON is requested as the input of :data:`JSON_TOOL`. A forced tool would exclude the
    client's own tools; with those, only the prompt asks for JSON."""
    return _wants_object(request) and not request.tools


def ignored_by(request: ChatRequest) -> tuple[str, ...]:
    """Return the fields of the client that :func:`body_of` has to leave out."""
    wanted = {
        "reasoning_effort": request.reasoning_effort not in {None, "none"} and not _may_think(request),
        "response_format": _wants_object(request) and not answers_by_tool(request),
    }
    return tuple(path for path, is_ignored in wanted.items() if is_ignored)


def _wants_object(request: ChatRequest) -> bool:
    return request.response_format is not None and request.response_format.type == "json_object"


def _output_config(request: ChatRequest) -> Body:
    config: Body = {}
    if request.response_format is not None and request.response_format.json_schema is not None:
        config["format"] = {"type": "json_schema", "schema": request.response_format.json_schema.schema_}
    if _may_think(request):
        config["effort"] = "low" if request.reasoning_effort == "minimal" else request.reasoning_effort
    return config


def _may_think(request: ChatRequest) -> bool:
    """Return True if thinking can be enabled. After a tool's result the API requires the signed thinking before it,
    which is not stored. With a forced tool there is no thinking."""
    is_free = (
        request.tool_choice in {None, "auto", "none"}
        if not isinstance(request.tool_choice, NamedToolChoice)
        else False
    )
    follows_a_tool = request.messages[-1].role == "tool"
    is_wanted = request.reasoning_effort not in {None, "none"}
    return is_wanted and is_free and not follows_a_tool and not answers_by_tool(request)


def _tool(tool: Tool) -> Body:
    function = tool.function
    description: Body = {"description": function.description} if function.description else {}
    strict: Body = {"strict": function.strict} if function.strict is not None else {}
    schema = function.parameters or {"type": "object", "properties": {}}
    return {"name": function.name, **description, "input_schema": schema, **strict}


def _tool_choice(request: ChatRequest) -> Body | None:
    choice = request.tool_choice
    if isinstance(choice, NamedToolChoice):
        chosen: Body = {"type": "tool", "name": choice.function.name}
    else:
        kinds: dict[str, Literal["auto", "none", "any"]] = {"auto": "auto", "none": "none", "required": "any"}
        chosen = {"type": kinds[choice or "auto"]}
    if request.tools and request.parallel_tool_calls is False and choice != "none":
        return {**chosen, "disable_parallel_tool_use": True}
    return chosen if choice is not None else None


def _messages(messages: Sequence[Message]) -> list[Body]:
    """Convert the messages. The API requires the results of parallel calls in one message."""
    made: list[Body] = []
    for role, group in groupby(messages, lambda message: message.role):
        if role == "tool":
            made.append({"role": "user", "content": [_result(message) for message in group]})
        else:
            made += [{"role": role, "content": _content(message)} for message in group]
    return made


def _content(message: Message) -> str | list[Body]:
    if isinstance(message.content, str) and not message.tool_calls:
        return message.content
    blocks: list[Body] = [_part(part) for part in message.parts]
    for call in message.tool_calls or ():
        blocks.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": call.function.parsed})
    return blocks


def _result(message: Message) -> Body:
    return {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text}


def _part(part: TextPart | ImagePart | FilePart) -> Body:
    match part:
        case TextPart():
            block: Body = {"type": "text", "text": part.text}
        case ImagePart():
            block = _image(part)
        case FilePart():
            block = _document(part)
    return block | ({"cache_control": part.cache_control} if part.cache_control else {})


def _document(part: FilePart) -> Body:
    title: Body = {"title": part.file.filename} if part.file.filename else {}
    if part.file.file_data is None:
        return {"type": "document", "source": {"type": "url", "url": part.file.file_url}, **title}
    kind, _, data = part.file.file_data.removeprefix("data:").partition(";base64,")
    return {"type": "document", "source": {"type": "base64", "media_type": kind, "data": data}, **title}


def _image(part: ImagePart) -> Body:
    url = part.image_url.url
    if not url.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
