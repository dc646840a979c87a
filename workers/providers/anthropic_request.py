"""Converts a request to Anthropic's: the client's own if it is one, else of its canonical fields."""

from typing import Any, Final, Literal

from shared.counterparts import add_counterparts
from shared.schemas import ChatRequest, NamedToolChoice, Tool
from shared.schemas.chat import original_for
from workers.providers.anthropic_messages import messages_of, system_of
from workers.providers.anthropic_original import body_of_original
from workers.providers.anthropic_thinking import may_think, thinking_of
from workers.providers.substitutes import Substitutes, anthropic_tool_names

FAMILY: Final = "anthropic"
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
#: Fields that options of the provider do not replace.
_OURS: Final = frozenset({"model", "messages", "stream"})
#: Canonical fields that the API lacks.
_LACKING: Final = ("frequency_penalty", "presence_penalty", "seed")

Body = dict[str, Any]


def body_of(request: ChatRequest, names: Substitutes | None = None) -> Body:
    """Return the request's body. ``names``: the substitutes of tools' names."""
    names = names or anthropic_tool_names()
    if (original := original_for(request, FAMILY)) is not None:
        return body_of_original(request, original, DEFAULT_MAX_TOKENS, names)
    max_tokens = request.max_tokens or DEFAULT_MAX_TOKENS
    optional: dict[str, object | None] = {
        "system": system_of(request.messages),
        "stop_sequences": request.stop or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "metadata": {"user_id": request.user} if request.user else None,
        "tools": [_tool(tool, names) for tool in request.tools] if request.tools else None,
        "tool_choice": _tool_choice(request, names),
    }
    if answers_by_tool(request):
        optional["tools"] = [_JSON_TOOL]
        optional["tool_choice"] = {"type": "tool", "name": JSON_TOOL}
    thinking = thinking_of(request, max_tokens) if _thinks(request) else {}
    if config := {**_format(request), **thinking.pop("output_config", {})}:
        optional["output_config"] = config
    body = {
        "model": request.model,
        "messages": messages_of(request.messages, names),
        "max_tokens": max_tokens,
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
        **thinking,
    }
    add_counterparts(body, request, FAMILY)
    return body | {name: value for name, value in options_of(request).items() if name not in {*_OURS, "betas"}}


def headers_of(request: ChatRequest) -> dict[str, str]:
    """Return the headers of the client that the provider reads too."""
    if (original := original_for(request, FAMILY)) is not None:
        return original.headers
    betas = options_of(request).get("betas")
    texts = [beta for beta in betas if isinstance(beta, str)] if isinstance(betas, list) else []
    return {"anthropic-beta": ",".join(texts)} if texts else {}


def options_of(request: ChatRequest) -> Body:
    return (request.provider_options or {}).get(FAMILY, {})


def answers_by_tool(request: ChatRequest) -> bool:
    """Return True if the JSON is requested as the input of :data:`JSON_TOOL`. A forced tool would exclude the
    client's own tools; with those, only the prompt asks for JSON."""
    return _wants_object(request) and not request.tools and original_for(request, FAMILY) is None


def ignored_by(request: ChatRequest) -> tuple[str, ...]:
    """Return the fields of the client that :func:`body_of` has to leave out."""
    if original_for(request, FAMILY) is not None:
        return ()
    wants_effort = request.reasoning_effort not in {None, "none"}
    wanted = {
        **{name: getattr(request, name) not in {None, 0} for name in _LACKING},
        "reasoning_effort": wants_effort and not _thinks(request),
        "reasoning_tokens": request.reasoning_tokens is not None and not _thinks(request),
        "response_format": _wants_object(request) and not answers_by_tool(request),
        **{f"messages.{at}.name": message.name is not None for at, message in enumerate(request.messages)},
    }
    return tuple(path for path, is_ignored in wanted.items() if is_ignored)


def _thinks(request: ChatRequest) -> bool:
    return may_think(request) and not answers_by_tool(request)


def _wants_object(request: ChatRequest) -> bool:
    return request.response_format is not None and request.response_format.type == "json_object"


def _format(request: ChatRequest) -> Body:
    if request.response_format is None or request.response_format.json_schema is None:
        return {}
    return {"format": {"type": "json_schema", "schema": request.response_format.json_schema.schema_}}


def _tool(tool: Tool, names: Substitutes) -> Body:
    function = tool.function
    made: Body = {"name": names.of(function.name)}
    if function.description:
        made["description"] = function.description
    made["input_schema"] = function.parameters or {"type": "object", "properties": {}}
    if function.strict is not None:
        made["strict"] = function.strict
    return made | ({"cache_control": tool.cache_control} if tool.cache_control else {})


def _tool_choice(request: ChatRequest, names: Substitutes) -> Body | None:
    choice = request.tool_choice
    if isinstance(choice, NamedToolChoice):
        chosen: Body = {"type": "tool", "name": names.of(choice.function.name)}
    else:
        kinds: dict[str, Literal["auto", "none", "any"]] = {"auto": "auto", "none": "none", "required": "any"}
        chosen = {"type": kinds[choice or "auto"]}
    if request.tools and request.parallel_tool_calls is False and choice != "none":
        return {**chosen, "disable_parallel_tool_use": True}
    return chosen if choice is not None else None
