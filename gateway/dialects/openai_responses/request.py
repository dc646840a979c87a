"""Parser of OpenAI's Responses requests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.dialects.field_paths import Placed, client_path
from gateway.dialects.options import flag
from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_json_object, validate

_UNCHANGED: Final = frozenset(
    {
        *("model", "temperature", "top_p", "parallel_tool_calls", "metadata"),
        *("provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
_TRANSLATED: Final = frozenset(
    {
        *("input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning"),
        *("stream", "background", "store", "previous_response_id"),
    }
)
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("user", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("prompt_cache_options", "include", "stream_options"),
    }
)
#: Fields that are accepted only with the value that applies anyway.
_ONLY_AS: Final[dict[str, Any]] = {"truncation": "disabled", "top_logprobs": 0}
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
#: Names of this API for canonical fields, and for members of a call.
_NAMES: Final = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "tool_choice.function": "tool_choice",
}
_CALL_NAMES: Final = {"id": "call_id", "function": ""}
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsesOptions:
    """``instructions``: number of messages at the beginning that apply to this request only; a follow-up request does
    not inherit them."""

    stream: bool
    background: bool
    store: bool
    instructions: int
    ignored: tuple[str, ...]


def previous_of(body: bytes) -> str | None:
    """Return the id of the response that the request continues. Raises like :func:`parse`."""
    previous = parse_json_object(body).get("previous_response_id")
    if previous is not None and not isinstance(previous, str):
        raise InvalidRequest("previous_response_id: must be a string")
    return previous


def references_of(body: bytes) -> list[str]:
    """Return the ids of earlier responses' items that the input refers to. Raises like :func:`parse`."""
    raw_input = parse_json_object(body).get("input")
    items = [item for item in raw_input if isinstance(item, dict)] if isinstance(raw_input, list) else []
    return [str(item.get("id")) for item in items if item.get("type") == "item_reference"]


def parse(
    body: bytes, earlier: list[Body], referred: Mapping[str, Body] | None = None
) -> tuple[ChatRequest, ResponsesOptions]:
    """Return the canonical request and the response options. ``earlier``: messages before the input. ``referred``:
    items of earlier responses, by id. Raises :class:`InvalidJson` and :class:`InvalidRequest`, which names the
    field."""
    raw = {name: value for name, value in parse_json_object(body).items() if value is not None}
    for name, value in raw.items():
        if name in _ONLY_AS and value != _ONLY_AS[name]:
            raise InvalidRequest(f"{name}: only {_ONLY_AS[name]!r} is supported; omit the field")
        if name not in _UNCHANGED | _TRANSLATED | _WITHOUT_EFFECT | _ONLY_AS.keys():
            raise InvalidRequest(f"{name[:64]}: not supported; remove the field")
    fields: Body = {name: value for name, value in raw.items() if name in _UNCHANGED}
    instructions = []
    if "instructions" in raw:
        system = {"role": "system", "content": raw["instructions"]}
        instructions = [Placed("instructions", system, {"content": ""})]
    fields["messages"] = [*instructions, *earlier, *_messages(raw.get("input"), referred or {})]
    tools = raw.get("tools") or None
    translated = {
        "max_tokens": raw.get("max_output_tokens"),
        "tools": [_tool(at, tool) for at, tool in enumerate(tools)] if isinstance(tools, list) else tools,
        "tool_choice": _tool_choice(raw.get("tool_choice")) if tools else None,
        "reasoning_effort": _member(raw, "reasoning", "effort"),
        "response_format": _format(_member(raw, "text", "format")),
    }
    fields |= {name: value for name, value in translated.items() if value is not None}
    ignored = tuple(sorted(raw.keys() & _WITHOUT_EFFECT))
    store = flag({"store": True, **raw}, "store")
    options = ResponsesOptions(flag(raw, "stream"), flag(raw, "background"), store, len(instructions), ignored)
    # Clients of this API cannot take back text that they show, so the loss of the worker ends a streamed answer. The
    # same holds in the background: the number from which a client reads on does not identify the attempt.
    fields.setdefault("on_worker_lost", "fail" if options.stream or options.background else "restart")
    return validate(ChatRequest, fields, path_of=client_path(fields, _NAMES)), options


def _messages(raw_input: Any, referred: Mapping[str, Body]) -> list[Body]:
    """Return the input as canonical messages. Consecutive calls belong to one message."""
    if isinstance(raw_input, str):
        return [Placed("input", {"role": "user", "content": raw_input}, {"content": ""})]
    if not isinstance(raw_input, list):
        raise InvalidRequest("input: must be a string or a list")
    messages: list[Body] = []
    for message in _items(raw_input, referred):
        before = messages[-1] if messages else {}
        if "tool_calls" in message and before.get("role") == "assistant":
            before.setdefault("tool_calls", []).extend(message["tool_calls"])
        else:
            messages.append(message)
    return messages


def _items(raw_items: list[Any], referred: Mapping[str, Body]) -> Iterator[Body]:
    for at, item in enumerate(raw_items):
        path = f"input.{at}"
        if not isinstance(item, dict):
            raise InvalidRequest(f"{path}: must be an object")
        if item.get("type") == "item_reference":
            item = referred.get(str(item.get("id")))  # noqa: PLW2901  the item that the reference names
            if item is None:
                raise InvalidRequest(f"{path}.id: no such item, or its retention has ended; send the item itself")
        match item.get("type", "message"):
            case "message":
                role = _ROLES.get(str(item.get("role")))
                if role is None:
                    raise InvalidRequest(f"{path}.role: must be {', '.join(_ROLES)}")
                yield Placed(path, {"role": role, "content": _content(path, item.get("content"))})
            case "function_call":
                call = tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))
                yield Placed(path, {"role": "assistant", "tool_calls": [Placed(path, call, _CALL_NAMES)]})
            case "function_call_output":
                content = _content(path, item.get("output"), "output")
                output = {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
                yield Placed(path, output, {"tool_call_id": "call_id", "content": "output"})
            case "reasoning":
                pass  # only the provider's own, encrypted items could be passed on
            case _:
                raise InvalidRequest(f"{path}.type: not supported; remove it")


def _content(path: str, content: Any, member: str = "content") -> Any:
    if not isinstance(content, list):
        return content
    return [
        Placed(place, _part(place, part), {"image_url.url": "image_url", "image_url": ""})
        for at, part in enumerate(content)
        for place in [f"{path}.{member}.{at}"]
    ]


def _part(path: str, part: Any) -> Body:
    match part.get("type") if isinstance(part, dict) else None:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text")}
        case "refusal":
            return {"type": "text", "text": part.get("refusal")}
        case "input_image" if part.get("image_url") is not None:
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise InvalidRequest(f"{path}.type: not supported; remove it")


def _tool(at: int, tool: Any) -> Body:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise InvalidRequest(f"tools.{at}.type: only function is supported; define a function tool")
    function = {
        name: value
        for name in ("name", "description", "parameters", "strict")
        if (value := tool.get(name)) is not None
    }
    return Placed(f"tools.{at}", {"type": "function", "function": function}, {"function": ""})


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict):
        return {"type": choice.get("type"), "function": {"name": choice.get("name")}}
    return choice


def _format(form: Any) -> Any:
    if isinstance(form, dict) and form.get("type") == "json_schema":
        named = {
            name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name) is not None
        }
        return {"type": "json_schema", "json_schema": named}
    return form


def _member(raw: Body, name: str, member: str) -> Any:
    value = raw.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{name}: must be an object")
    return value.get(member) if value else None
