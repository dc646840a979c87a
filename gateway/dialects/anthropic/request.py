"""Anthropic's Messages as the canonical request."""

import json
from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.anthropic.errors import ThreadsUnsupported
from gateway.dialects.options import ResponseOptions, flag
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import checked, parse_json_object

_SAME: Final = frozenset(
    {
        *("model", "max_tokens", "temperature", "top_p"),
        *("provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
_TRANSLATED: Final = frozenset(
    {"messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config", "stream"}
)
_WITHOUT_EFFECT: Final = frozenset({"metadata", "service_tier", "cache_control", "inference_geo"})
#: No set: what a request has in such a place may be a list, which no set can be asked for.
_ROLES: Final = ("user", "assistant", "system")
_TOOL_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
#: A budget of thinking tokens up to which the effort is this.
_EFFORTS: Final = ((4_096, "low"), (16_384, "medium"))
Body = dict[str, Any]


def parse(body: bytes, *, only_count: bool = False) -> tuple[ChatRequest, ResponseOptions]:
    """``only_count``: it is the tokens that are asked for, and no answer. Raises :class:`InvalidJson` and
    :class:`InvalidRequest`, which names the field."""
    said = {name: value for name, value in parse_json_object(body).items() if value is not None}
    if "thread" in said:
        raise ThreadsUnsupported("thread: not supported, send all messages")
    for name in said:
        if name not in _SAME | _TRANSLATED | _WITHOUT_EFFECT:
            raise InvalidRequest(f"{name[:64]}: not supported")
    if "max_tokens" not in said and not only_count:
        raise InvalidRequest("max_tokens: field required")
    asked: Body = {name: value for name, value in said.items() if name in _SAME}
    asked["messages"] = [*_system(said.get("system")), *_messages(said.get("messages"))]
    translated = {
        "stop": said.get("stop_sequences"),
        "tools": [_tool(at, tool) for at, tool in enumerate(_list(said, "tools"))] or None,
        "tool_choice": _tool_choice(said.get("tool_choice")) if said.get("tools") else None,
        "only_count": only_count or None,
        "parallel_tool_calls": _may_call_in_parallel(said.get("tool_choice")),
        "reasoning_effort": _effort(said),
        "response_format": _format(said.get("output_config")),
    }
    asked |= {name: value for name, value in translated.items() if value is not None}
    stream = flag(said, "stream")
    # Its clients cannot take back what they have shown: a worker that is lost in the middle ends the answer.
    asked.setdefault("on_worker_lost", "fail" if stream else "restart")
    return checked(ChatRequest, asked), ResponseOptions(stream, tuple(sorted(said.keys() & _WITHOUT_EFFECT)))


def _system(system: Any) -> list[Body]:
    if system is None:
        return []
    parts = [_text(f"system.{at}", block) for at, block in enumerate(system)] if isinstance(system, list) else system
    return [{"role": "system", "content": parts}]


def _messages(messages: Any) -> Iterator[Body]:
    if not isinstance(messages, list):
        raise InvalidRequest("messages: must be a list")
    for at, message in enumerate(messages):
        place = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise InvalidRequest(f"{place}.role: must be user, assistant or system")
        if message["role"] == "system":
            yield from _system(message.get("content"))
        elif not isinstance(message.get("content"), list):
            yield {"role": message["role"], "content": message.get("content")}
        elif message["role"] == "user":
            yield from _of_user(place, message["content"])
        else:
            yield _of_assistant(place, message["content"])


def _of_user(place: str, blocks: list[Any]) -> Iterator[Body]:
    """Results of tools are messages of their own, before what else the user says."""
    parts: list[Body] = []
    for at, block in enumerate(blocks):
        where = f"{place}.content.{at}"
        match _type(block):
            case "tool_result":
                yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _result(where, block)}
            case "image":
                parts.append({"type": "image_url", "image_url": {"url": _image(where, block.get("source"))}})
            case _:
                parts.append(_text(where, block))
    if parts:
        yield {"role": "user", "content": parts}


def _of_assistant(place: str, blocks: list[Any]) -> Body:
    """Thinking is left out: it would have to be signed, and we keep no signatures."""
    calls, parts = [], []
    for at, block in enumerate(blocks):
        match _type(block):
            case "tool_use":
                function = {"name": block.get("name"), "arguments": json.dumps(block.get("input", {}))}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            case "thinking" | "redacted_thinking":
                pass
            case _:
                parts.append(_text(f"{place}.content.{at}", block))
    message: Body = {"role": "assistant"}
    if parts or not calls:
        message["content"] = parts or ""
    return message | ({"tool_calls": calls} if calls else {})


def _result(where: str, block: Body) -> Any:
    content = block.get("content", "")
    if isinstance(content, list):
        return [_text(f"{where}.content.{at}", part) for at, part in enumerate(content)] or ""
    return content


def _text(where: str, block: Any) -> Body:
    if _type(block) != "text":
        raise InvalidRequest(f"{where}.type: not supported here")
    return {"type": "text", "text": block.get("text")}


def _image(where: str, source: Any) -> str:
    match _type(source):
        case "base64":
            return f"data:{source.get('media_type')};base64,{source.get('data')}"
        case "url":
            return str(source.get("url"))
    raise InvalidRequest(f"{where}.source.type: must be base64 or url")


def _tool(at: int, tool: Any) -> Body:
    if not isinstance(tool, dict) or tool.get("type", "custom") != "custom":
        raise InvalidRequest(f"tools.{at}.type: tools of the provider's own are not supported")
    function = {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
        "strict": tool.get("strict"),
    }
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _tool_choice(choice: Any) -> Any:
    if choice is None:
        return None
    kind = _type(choice)
    if isinstance(choice, dict) and kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if (chosen := _TOOL_CHOICES.get(str(kind))) is None:
        raise InvalidRequest(f"tool_choice.type: must be {', '.join(_TOOL_CHOICES)} or tool")
    return chosen


def _may_call_in_parallel(choice: Any) -> bool | None:
    return False if isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True else None


def _effort(said: Body) -> Any:
    config, thinking = said.get("output_config"), said.get("thinking")
    if isinstance(config, dict) and config.get("effort") is not None:
        return config["effort"]
    match _type(thinking):
        case "enabled" if isinstance(thinking, dict):
            budget = thinking.get("budget_tokens")
            if not isinstance(budget, int):
                raise InvalidRequest("thinking.budget_tokens: must be an integer")
            return next((effort for most, effort in _EFFORTS if budget <= most), "high")
        case "adaptive":
            return "medium"
    return None


def _format(config: Any) -> Body | None:
    form = config.get("format") if isinstance(config, dict) else None
    if form is None:
        return None
    if _type(form) != "json_schema":
        raise InvalidRequest("output_config.format.type: must be json_schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.get("schema")}}


def _list(said: Body, name: str) -> list[Any]:
    value = said.get(name, [])
    if not isinstance(value, list):
        raise InvalidRequest(f"{name}: must be a list")
    return value


def _type(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None
