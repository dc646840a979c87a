"""A request with the beginning of its answer, in the form that a server goes on with."""

from collections.abc import Mapping
from typing import Any, Final

from shared.configuration.entries import Continues
from shared.provider_fields import client_path
from shared.schemas import ChatRequest, Message, NamedToolChoice
from shared.schemas.chat import StoredRequest, original_for

Body = dict[str, Any]
#: Fields of the limit of output, in originals of all families.
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_THINKING: Final = frozenset({"enabled", "adaptive"})
#: Fields that fix the form of an answer. A text within such a form has no beginning that a model can go on with.
_FORMS: Final = frozenset(
    {
        *("response_format", "format", "output_format", "output_config", "structured_outputs", "json_schema"),
        *("grammar", "regex", "ebnf", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    }
)


def has_fixed_form(request: ChatRequest) -> bool:
    """Return True if the answer has to be JSON or a tool call, or to follow a grammar."""
    if isinstance(request.tool_choice, NamedToolChoice) or request.tool_choice == "required":
        return True
    if request.response_format is not None and request.response_format.type != "text":
        return True
    original = request.original if isinstance(request, StoredRequest) else None
    bodies = [*(request.provider_options or {}).values(), original.body if original is not None else {}]
    return any(_fixes_form(body) for body in bodies)


def _fixes_form(body: Mapping[str, Any]) -> bool:
    for name in _FORMS & body.keys():
        value = body[name]
        form = value.get("format") if name == "output_config" and isinstance(value, dict) else value
        if form and not (isinstance(form, dict) and form.get("type") == "text"):
            return True
    text = body.get("text")  # of Responses
    form = text.get("format") if isinstance(text, dict) else None
    return isinstance(form, dict) and form.get("type") != "text"


def with_prefix(
    request: ChatRequest, way: Continues, family: str, prefix: str, used_tokens: int
) -> tuple[ChatRequest, tuple[str, ...]]:
    """Return the request with the beginning of its answer, and the client's paths of the fields that it had to lose.
    ``family``: that of the target. ``used_tokens``: output so far, which counts towards the client's limit."""
    changes, lost = _without_thinking(request) if family == "anthropic" else ({}, ())
    members: Body = {"prefix": True} if way == "prefix" else {}
    message = Message(role="assistant", content=prefix, extra={"openai": members} if members else None)
    changes["messages"] = [*request.messages, message]
    if request.max_tokens is not None:
        changes["max_tokens"] = max(1, request.max_tokens - used_tokens)
    if way == "continue_final_message":
        options = changes.get("provider_options", request.provider_options) or {}
        own = {"continue_final_message": True, "add_generation_prompt": False}
        changes["provider_options"] = {**options, "openai": {**options.get("openai", {}), **own}}
    if (original := original_for(request, family)) is not None:
        body = dict(original.body)
        if family == "anthropic" and _thinks(body):
            del body["thinking"]
            lost = tuple(dict.fromkeys((*lost, "thinking")))
        body["messages"] = [*body.get("messages", ()), {"role": "assistant", "content": prefix, **members}]
        for name in _LIMITS:
            if isinstance(limit := body.get(name), int):
                body[name] = max(1, limit - used_tokens)
        changes["original"] = original.model_copy(update={"body": body})
    return request.model_copy(update=changes), lost


def _without_thinking(request: ChatRequest) -> tuple[Body, tuple[str, ...]]:
    """Return the changes that disable thinking: Anthropic refuses it together with the beginning of an answer."""
    changes, lost = Body(), list[str]()
    if request.reasoning_effort not in {None, "none"} or request.reasoning_tokens is not None:
        names = [name for name in ("reasoning_effort", "reasoning_tokens") if getattr(request, name) is not None]
        changes = dict.fromkeys(names)
        lost = [client_path(request, name) for name in names]
    options = request.provider_options or {}
    if _thinks(options.get("anthropic", {})):
        kept = {name: value for name, value in options["anthropic"].items() if name != "thinking"}
        changes["provider_options"] = {**options, "anthropic": kept}
        lost.append("provider_options.anthropic.thinking")
    return changes, tuple(dict.fromkeys(lost))


def _thinks(body: Mapping[str, Any]) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in _THINKING
