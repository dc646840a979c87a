"""OpenAI's Responses as the canonical request."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.dialects.options import flag
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import checked, parse_json_object

_SAME: Final = frozenset(
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
#: Taken where they say what would be so anyway.
_ONLY_AS: Final[dict[str, Any]] = {"truncation": "disabled", "top_logprobs": 0}
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponsesOptions:
    """``instructions``: so many messages at the beginning are this request's alone, and no later one's."""

    stream: bool
    background: bool
    store: bool
    instructions: int
    ignored: tuple[str, ...]


def previous_of(body: bytes) -> str | None:
    """The response that the request goes on from. Raises as :func:`parse` does."""
    previous = parse_json_object(body).get("previous_response_id")
    if previous is not None and not isinstance(previous, str):
        raise InvalidRequest("previous_response_id: must be a text")
    return previous


def references_of(body: bytes) -> list[str]:
    """Ids of items of earlier responses, which the input has in place of the items. Raises as :func:`parse` does."""
    given = parse_json_object(body).get("input")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    return [str(item.get("id")) for item in items if item.get("type") == "item_reference"]


def parse(
    body: bytes, earlier: list[Body], referred: Mapping[str, Body] | None = None
) -> tuple[ChatRequest, ResponsesOptions]:
    """``earlier``: messages before its input. ``referred``: items by their ids. Raises :class:`InvalidJson` and
    :class:`InvalidRequest`, which names the field."""
    said = {name: value for name, value in parse_json_object(body).items() if value is not None}
    for name, value in said.items():
        if name in _ONLY_AS and value != _ONLY_AS[name]:
            raise InvalidRequest(f"{name}: only {_ONLY_AS[name]!r} is supported")
        if name not in _SAME | _TRANSLATED | _WITHOUT_EFFECT | _ONLY_AS.keys():
            raise InvalidRequest(f"{name[:64]}: not supported")
    asked: Body = {name: value for name, value in said.items() if name in _SAME}
    instructions = [{"role": "system", "content": said["instructions"]}] if "instructions" in said else []
    asked["messages"] = [*instructions, *earlier, *_messages(said.get("input"), referred or {})]
    tools = said.get("tools") or None
    translated = {
        "max_tokens": said.get("max_output_tokens"),
        "tools": [_tool(at, tool) for at, tool in enumerate(tools)] if isinstance(tools, list) else tools,
        "tool_choice": _tool_choice(said.get("tool_choice")) if tools else None,
        "reasoning_effort": _member(said, "reasoning", "effort"),
        "response_format": _format(_member(said, "text", "format")),
    }
    asked |= {name: value for name, value in translated.items() if value is not None}
    ignored = tuple(sorted(said.keys() & _WITHOUT_EFFECT))
    store = flag({"store": True, **said}, "store")
    wish = ResponsesOptions(flag(said, "stream"), flag(said, "background"), store, len(instructions), ignored)
    # Its clients cannot take back what they have shown: a worker that is lost in the middle ends the answer. Nor can
    # the number from which one in the background is read on say which attempt it belongs to.
    asked.setdefault("on_worker_lost", "fail" if wish.stream or wish.background else "restart")
    return checked(ChatRequest, asked), wish


def _messages(given: Any, referred: Mapping[str, Body]) -> list[Body]:
    """One message for calls that follow each other, as the canonical form has it."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise InvalidRequest("input: must be a text or a list")
    messages: list[Body] = []
    for message in _items(given, referred):
        before = messages[-1] if messages else {}
        if "tool_calls" in message and before.get("role") == "assistant":
            before.setdefault("tool_calls", []).extend(message["tool_calls"])
        else:
            messages.append(message)
    return messages


def _items(given: list[Any], referred: Mapping[str, Body]) -> Iterator[Body]:
    for at, item in enumerate(given):
        place = f"input.{at}"
        if not isinstance(item, dict):
            raise InvalidRequest(f"{place}: must be an object")
        if item.get("type") == "item_reference":
            item = referred.get(str(item.get("id")))  # noqa: PLW2901  what it stands for
            if item is None:
                raise InvalidRequest(f"{place}.id: there is no such item, or its retention has ended")
        match item.get("type", "message"):
            case "message":
                role = _ROLES.get(str(item.get("role")))
                if role is None:
                    raise InvalidRequest(f"{place}.role: must be {', '.join(_ROLES)}")
                yield {"role": role, "content": _content(place, item.get("content"))}
            case "function_call":
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                call = {"id": item.get("call_id"), "type": "function", "function": function}
                yield {"role": "assistant", "tool_calls": [call]}
            case "function_call_output":
                content = _content(place, item.get("output"))
                yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
            case "reasoning":
                pass  # would have to be the provider's own, encrypted
            case _:
                raise InvalidRequest(f"{place}.type: not supported")


def _content(place: str, content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(f"{place}.content.{at}", part) for at, part in enumerate(content)]


def _part(place: str, part: Any) -> Body:
    match part.get("type") if isinstance(part, dict) else None:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text")}
        case "refusal":
            return {"type": "text", "text": part.get("refusal")}
        case "input_image" if part.get("image_url") is not None:
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise InvalidRequest(f"{place}.type: not supported")


def _tool(at: int, tool: Any) -> Body:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise InvalidRequest(f"tools.{at}.type: only function is supported")
    function = {
        name: value
        for name in ("name", "description", "parameters", "strict")
        if (value := tool.get(name)) is not None
    }
    return {"type": "function", "function": function}


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


def _member(said: Body, name: str, member: str) -> Any:
    value = said.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{name}: must be an object")
    return value.get(member) if value else None
