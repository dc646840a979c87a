"""Parser of OpenAI's Chat Completions requests. The canonical request uses the same names for most fields."""

from typing import Any, Final

from gateway.dialects.options import ResponseOptions, flag
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import parse_json_object, validate

#: Fields of both formats, and fields that a request may add to the API's (`extra_body` of the SDKs).
_UNCHANGED: Final = frozenset(
    {
        *("model", "messages", "temperature", "max_tokens", "stop", "tools", "tool_choice", "response_format"),
        *("top_p", "frequency_penalty", "presence_penalty", "parallel_tool_calls"),
        *("reasoning_effort", "metadata", "provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
#: Accepted fields that do not affect the answer's text; the header `X-Headrace-Ignored` lists them.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("prompt_cache_options", "seed", "verbosity"),
    }
)
#: Fields that are accepted only with the value that applies anyway.
_ONLY_AS: Final[dict[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
}
_TRANSLATED: Final = frozenset({"stream", "stream_options", "max_completion_tokens"})


def parse(body: bytes) -> tuple[ChatRequest, ResponseOptions]:
    """Return the canonical request and the response options. Raises :class:`InvalidJson` and
    :class:`InvalidRequest`, which names the field."""
    raw = {name: value for name, value in parse_json_object(body).items() if value is not None}
    for name, value in raw.items():
        if name in _ONLY_AS and value != _ONLY_AS[name]:
            raise InvalidRequest(f"{name}: only {_ONLY_AS[name]!r} is supported; omit the field")
        if name not in _UNCHANGED | _WITHOUT_EFFECT | _TRANSLATED | _ONLY_AS.keys():
            raise InvalidRequest(f"{name[:64]}: not supported; remove the field")
    fields = {name: value for name, value in raw.items() if name in _UNCHANGED}
    if "max_completion_tokens" in raw:
        fields["max_tokens"] = raw["max_completion_tokens"]
    if isinstance(fields.get("messages"), list):
        fields["messages"] = [_message(message) for message in fields["messages"]]
    # Clients of this API cannot take back text that they show, so the loss of the worker ends a streamed answer.
    fields.setdefault("on_worker_lost", "fail" if raw.get("stream") else "restart")
    options = ResponseOptions(
        stream=flag(raw, "stream"),
        include_usage=flag(raw.get("stream_options", {}), "include_usage", "stream_options."),
        ignored=tuple(sorted(raw.keys() & _WITHOUT_EFFECT)),
    )
    return validate(ChatRequest, fields), options


def _message(message: Any) -> Any:
    """Return a message without the fields that models do not read (`name`), that repeat a response of ours
    (`annotations`), or that an SDK's helper has added (`parsed`)."""
    if not isinstance(message, dict):
        return message
    kept = {
        name: value
        for name, value in message.items()
        if value is not None and name not in {"name", "refusal", "annotations", "reasoning_content", "parsed"}
    }
    if kept.get("role") == "developer":
        kept["role"] = "system"
    if isinstance(content := kept.get("content"), list):
        kept["content"] = [_part(part) for part in content]
    if isinstance(calls := kept.get("tool_calls"), list):
        kept["tool_calls"] = [_call(call) for call in calls]
        if not calls:
            del kept["tool_calls"]
    if kept.get("role") == "assistant" and "content" not in kept and "tool_calls" not in kept:
        kept["content"] = message.get("refusal") or ""
    return kept


def _part(part: Any) -> Any:
    """Return a content part without the field for caches (`prompt_cache_breakpoint`)."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    return {name: value for name, value in part.items() if name != "prompt_cache_breakpoint"}


def _call(call: Any) -> Any:
    """Return a tool call without the fields that an SDK's helpers add (`index`, `parsed_arguments`)."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = {name: value for name, value in call["function"].items() if name != "parsed_arguments"}
    return {name: value for name, value in call.items() if name != "index"} | {"function": function}
