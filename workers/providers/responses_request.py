"""Builds the request to a server of Responses: from the client's original, or from the canonical fields.

An original keeps every member and their order. Only ``model`` and ``stream`` are replaced, and what no such server
accepts is repaired (:mod:`workers.providers.responses_repairs`).

A client of another dialect has not asked the provider to store anything, unless it says so (``store`` of Chat
Completions). So its requests have ``store: false``. Its reasoning then has to travel with the conversation: it is
asked for in encrypted form. Answers that are stored for resume are an exception, which the operator has configured.
"""

from collections.abc import Iterator
from typing import Any, Final

from shared.counterparts import add_counterparts
from shared.schemas import ChatRequest, FilePart, ImagePart, Message, StoredRequest, TextPart, Tool
from shared.schemas.chat import original_for
from shared.schemas.response_format import ResponseFormat
from shared.schemas.tools import NamedToolChoice, ToolChoice
from workers.providers.openai_request import EFFORTS
from workers.providers.refused_fields import Body
from workers.providers.responses_repairs import ResponsesNames, repaired

FAMILY: Final = "responses"
ENCRYPTED: Final = "reasoning.encrypted_content"
_UNCHANGED: Final = {"temperature", "top_p", "user", "parallel_tool_calls"}
#: Fields that a client's ``provider_options`` do not replace.
_FIXED: Final = frozenset({"model", "input", "stream", "background", "previous_response_id", "conversation"})
#: Members of an item of reasoning that go back to the provider.
_REASONING: Final = ("id", "summary", "content", "encrypted_content")


def body_of(request: ChatRequest, names: ResponsesNames, *, is_stored: bool = False) -> Body:
    """Return the body. ``is_stored``: the server generates the answer in the background and stores it."""
    original = original_for(request, FAMILY)
    body = _from_canonical(request) if original is None else dict(original.body)
    body |= {"model": request.model, "stream": True}
    body |= {n: v for n, v in (request.provider_options or {}).get(FAMILY, {}).items() if n not in _FIXED}
    if is_stored:
        body |= {"background": True, "store": True}
    return repaired(body, names)


def forbids_storage(request: ChatRequest) -> bool:
    """Return True if the client itself says that the provider must not store the answer."""
    original = request.original if isinstance(request, StoredRequest) else None
    options = (request.provider_options or {}).values()
    return any(body.get("store") is False for body in (*options, original.body if original is not None else {}))


def sent_body(body: Body, request: ChatRequest, names: ResponsesNames) -> Body:
    """Return the body to send. Without ``background``, which the server has refused, nothing asks it to store the
    answer but what the client set."""
    if "store" not in body or "background" in body:
        return body
    asked = body_of(request, names).get("store")
    return body | {"store": asked} if asked is not None else {n: v for n, v in body.items() if n != "store"}


def _from_canonical(request: ChatRequest) -> Body:
    body: Body = {"model": request.model}
    leading, messages = _divided(request.messages)
    if leading:
        body["instructions"] = "\n\n".join(message.text for message in leading)
    body["input"] = [item for message in messages for item in _items(message)]
    body |= request.model_dump(mode="json", include=_UNCHANGED, exclude_none=True)
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    else:
        body.pop("parallel_tool_calls", None)
    if request.tool_choice is not None:
        body["tool_choice"] = _chosen(request.tool_choice)
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    if reasoning := _reasoning(request):
        body["reasoning"] = reasoning
    return add_counterparts(body | {"store": False, "include": [ENCRYPTED]}, request, FAMILY)


def _divided(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Return the system messages at the beginning, and the rest. At least one message remains input."""
    count = next((at for at, message in enumerate(messages) if message.role != "system"), 0)
    return messages[:count], messages[count:]


def _items(message: Message) -> Iterator[Body]:
    if message.role == "tool":
        output = _content(message) if message.content else ""
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}
        return
    if message.role == "assistant":
        yield from _reasoning_items(message)
    if message.content or (message.content is not None and message.role == "user"):
        yield {"type": "message", "role": message.role, "content": _content(message)}
    for call in message.tool_calls or ():
        function = {"name": call.function.name, "arguments": call.function.arguments}
        id = (call.extra or {}).get(FAMILY, {}).get("id")
        named = {"id": id} if isinstance(id, str) else {}
        yield {"type": "function_call", **named, "call_id": call.id, **function}


def _reasoning_items(message: Message) -> Iterator[Body]:
    """Yield the reasoning that the provider gave with this message."""
    own = (message.extra or {}).get(FAMILY, {})
    for item in own.get("items", ()):
        yield {"type": "reasoning", "summary": [], **{name: item[name] for name in _REASONING if name in item}}


def _content(message: Message) -> Any:
    if isinstance(message.content, str):
        return message.content
    return [_part(part, "output_text" if message.role == "assistant" else "input_text") for part in message.parts]


def _part(part: TextPart | ImagePart | FilePart, text_type: str) -> Body:
    match part:
        case TextPart():
            return {"type": text_type, "text": part.text}
        case ImagePart():
            return {"type": "input_image", "image_url": part.image_url.url, "detail": part.image_url.detail or "auto"}
        case FilePart():
            return {"type": "input_file", **part.file.model_dump(exclude_none=True)}


def _tool(tool: Tool) -> Body:
    """Return a tool. Functions of this API are strict if they do not say otherwise; canonical ones are not."""
    function = tool.function
    described = {"description": function.description} if function.description is not None else {}
    parameters = function.parameters if function.parameters is not None else {"type": "object", "properties": {}}
    named = {"type": "function", "name": function.name, **described}
    return {**named, "parameters": parameters, "strict": bool(function.strict)}


def _chosen(choice: ToolChoice) -> Any:
    return {"type": "function", "name": choice.function.name} if isinstance(choice, NamedToolChoice) else choice


def _format(form: ResponseFormat) -> Body:
    if form.json_schema is None:
        return {"type": form.type}
    return {"type": form.type, **form.json_schema.model_dump(mode="json", by_alias=True, exclude_none=True)}


def _reasoning(request: ChatRequest) -> Body:
    """Return effort and summary. A client that asks for reasoning gets its summary: the text itself is secret."""
    effort: str | None = request.reasoning_effort
    if effort is None and request.reasoning_tokens is not None:
        tokens = request.reasoning_tokens
        effort = next((name for most, name in EFFORTS if tokens <= most), "high")
    if effort is None:
        return {}
    return {"effort": effort} if effort == "none" else {"effort": effort, "summary": "auto"}
