"""Parser of Anthropic's Messages requests."""

import json
from collections.abc import Iterator
from typing import Any, Final

from gateway.dialects.anthropic.errors import ThreadsUnsupported
from gateway.dialects.field_paths import Placed, client_path
from gateway.dialects.options import ResponseOptions, flag
from gateway.dialects.tool_call import tool_call
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_json_object, validate

_UNCHANGED: Final = frozenset(
    {
        *("model", "max_tokens", "temperature", "top_p"),
        *("provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
_TRANSLATED: Final = frozenset(
    {"messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config", "stream"}
)
_WITHOUT_EFFECT: Final = frozenset({"metadata", "service_tier", "cache_control", "inference_geo"})
#: A tuple, not a set: a request may have a list here, and lists are not hashable.
_ROLES: Final = ("user", "assistant", "system")
_TOOL_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
#: Largest budget of thinking tokens for each reasoning effort; `high` above.
_EFFORTS: Final = ((4_096, "low"), (16_384, "medium"))
#: Names of a call's members.
_CALL_NAMES: Final = {"function.name": "name", "function.arguments": "input", "function": ""}
Body = dict[str, Any]


def parse(body: bytes, *, only_count: bool = False) -> tuple[ChatRequest, ResponseOptions]:
    """Return the canonical request and the response options. ``only_count``: the request asks for its number of
    tokens, not for an answer. Raises :class:`InvalidJson` and :class:`InvalidRequest`, which names the field."""
    raw = {name: value for name, value in parse_json_object(body).items() if value is not None}
    if "thread" in raw:
        raise ThreadsUnsupported("thread: not supported; send all messages")
    for name in raw:
        if name not in _UNCHANGED | _TRANSLATED | _WITHOUT_EFFECT:
            raise InvalidRequest(f"{name[:64]}: not supported; remove the field")
    if "max_tokens" not in raw and not only_count:
        raise InvalidRequest("max_tokens: field required")
    fields: Body = {name: value for name, value in raw.items() if name in _UNCHANGED}
    fields["messages"] = [*_system(raw.get("system")), *_messages(raw.get("messages"))]
    translated = {
        "stop": raw.get("stop_sequences"),
        "tools": [_tool(at, tool) for at, tool in enumerate(_list(raw, "tools"))] or None,
        "tool_choice": _tool_choice(raw.get("tool_choice")) if raw.get("tools") else None,
        "only_count": only_count or None,
        "parallel_tool_calls": _may_call_in_parallel(raw.get("tool_choice")),
        "reasoning_effort": _effort(raw),
        "response_format": _format(raw.get("output_config")),
    }
    fields |= {name: value for name, value in translated.items() if value is not None}
    stream = flag(raw, "stream")
    # Clients of this API cannot take back text that they show, so the loss of the worker ends a streamed answer.
    fields.setdefault("on_worker_lost", "fail" if stream else "restart")
    path_of = client_path(fields, _names(raw))
    return validate(ChatRequest, fields, path_of=path_of), ResponseOptions(
        stream, tuple(sorted(raw.keys() & _WITHOUT_EFFECT))
    )


def _names(raw: Body) -> dict[str, str]:
    """Return the names of this API for canonical fields."""
    config = raw.get("output_config")
    has_effort = isinstance(config, dict) and config.get("effort") is not None
    return {
        "stop": "stop_sequences",
        "tool_choice.function": "tool_choice",
        "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
        "reasoning_effort": "output_config.effort" if has_effort else "thinking",
        "response_format.json_schema": "output_config.format",
        "response_format": "output_config.format",
    }


def _system(system: Any, path: str = "system") -> list[Body]:
    if system is None:
        return []
    parts = [_text(f"{path}.{at}", block) for at, block in enumerate(system)] if isinstance(system, list) else system
    return [Placed(path, {"role": "system", "content": parts}, {"content": ""})]


def _messages(messages: Any) -> Iterator[Body]:
    if not isinstance(messages, list):
        raise InvalidRequest("messages: must be a list")
    for at, message in enumerate(messages):
        path = f"messages.{at}"
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise InvalidRequest(f"{path}.role: must be user, assistant or system")
        if message["role"] == "system":
            yield from _system(message.get("content"), f"{path}.content")
        elif not isinstance(message.get("content"), list):
            yield Placed(path, {"role": message["role"], "content": message.get("content")})
        elif message["role"] == "user":
            yield from _user_messages(path, message["content"])
        else:
            yield _assistant_message(path, message["content"])


def _user_messages(path: str, blocks: list[Any]) -> Iterator[Body]:
    """Yield the tool results as messages of their own, then one message with the remaining blocks."""
    parts: list[Body] = []
    for at, block in enumerate(blocks):
        block_path = f"{path}.content.{at}"
        match _type(block):
            case "tool_result":
                result = {
                    "role": "tool",
                    "tool_call_id": block.get("tool_use_id"),
                    "content": _result(block_path, block),
                }
                yield Placed(block_path, result, {"tool_call_id": "tool_use_id"})
            case "image":
                image = {"type": "image_url", "image_url": {"url": _image(block_path, block.get("source"))}}
                parts.append(Placed(block_path, image, {"image_url": "source"}))
            case _:
                parts.append(_text(block_path, block))
    if parts:
        yield Placed(path, {"role": "user", "content": parts})


def _assistant_message(path: str, blocks: list[Any]) -> Body:
    """Return an assistant message. Thinking is left out: it would need a signature, and none is stored."""
    calls, parts = [], []
    for at, block in enumerate(blocks):
        match _type(block):
            case "tool_use":
                arguments = json.dumps(block.get("input", {}))
                call = tool_call(block.get("id"), block.get("name"), arguments)
                calls.append(Placed(f"{path}.content.{at}", call, _CALL_NAMES))
            case "thinking" | "redacted_thinking":
                pass
            case _:
                parts.append(_text(f"{path}.content.{at}", block))
    message: Body = {"role": "assistant"}
    if parts or not calls:
        message["content"] = parts or ""
    return Placed(path, message | ({"tool_calls": calls} if calls else {}))


def _result(path: str, block: Body) -> Any:
    content = block.get("content", "")
    if isinstance(content, list):
        return [_text(f"{path}.content.{at}", part) for at, part in enumerate(content)] or ""
    return content


def _text(path: str, block: Any) -> Body:
    if _type(block) != "text":
        raise InvalidRequest(f"{path}.type: not supported here; use text")
    return Placed(path, {"type": "text", "text": block.get("text")})


def _image(path: str, source: Any) -> str:
    match _type(source):
        case "base64":
            return f"data:{source.get('media_type')};base64,{source.get('data')}"
        case "url":
            return str(source.get("url"))
    raise InvalidRequest(f"{path}.source.type: must be base64 or url")


def _tool(at: int, tool: Any) -> Body:
    if not isinstance(tool, dict) or tool.get("type", "custom") != "custom":
        raise InvalidRequest(f"tools.{at}.type: provider-defined tools are not supported; define a custom tool")
    function = {
        "name": tool.get("name"),
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
        "strict": tool.get("strict"),
    }
    function = {name: value for name, value in function.items() if value is not None}
    names = {"function.parameters": "input_schema", "function": ""}
    return Placed(f"tools.{at}", {"type": "function", "function": function}, names)


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


def _effort(raw: Body) -> Any:
    config, thinking = raw.get("output_config"), raw.get("thinking")
    if isinstance(config, dict) and config.get("effort") is not None:
        return config["effort"]
    match _type(thinking):
        case "enabled" if isinstance(thinking, dict):
            budget = thinking.get("budget_tokens")
            if not isinstance(budget, int):
                raise InvalidRequest("thinking.budget_tokens: must be an integer")
            return next((effort for limit, effort in _EFFORTS if budget <= limit), "high")
        case "adaptive":
            return "medium"
    return None


def _format(config: Any) -> Body | None:
    output_format = config.get("format") if isinstance(config, dict) else None
    if output_format is None:
        return None
    if _type(output_format) != "json_schema":
        raise InvalidRequest("output_config.format.type: must be json_schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": output_format.get("schema")}}


def _list(raw: Body, name: str) -> list[Any]:
    value = raw.get(name, [])
    if not isinstance(value, list):
        raise InvalidRequest(f"{name}: must be a list")
    return value


def _type(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None
