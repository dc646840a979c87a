"""OpenAI's Chat Completions as the canonical request, which has its words for most things."""

from typing import Any, Final

from gateway.dialects.options import ResponseOptions, flag
from shared.errors import InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import checked, parse_json_object

#: What both have, and what a request may say beyond the API (`extra_body` of the SDKs).
_SAME: Final = frozenset(
    {
        *("model", "messages", "temperature", "max_tokens", "stop", "tools", "tool_choice", "response_format"),
        *("top_p", "frequency_penalty", "presence_penalty", "parallel_tool_calls"),
        *("reasoning_effort", "metadata", "provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost"),
    }
)
#: Nothing of the answer's text depends on them; they are named in the header `X-Headrace-Ignored`.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("prompt_cache_options", "seed", "verbosity"),
    }
)
#: Taken where they say what would be so anyway.
_ONLY_AS: Final[dict[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
}
_OWN: Final = frozenset({"stream", "stream_options", "max_completion_tokens"})


def parse(body: bytes) -> tuple[ChatRequest, ResponseOptions]:
    """Raises :class:`InvalidJson` and :class:`InvalidRequest`, which names the field."""
    said = {name: value for name, value in parse_json_object(body).items() if value is not None}
    for name, value in said.items():
        if name in _ONLY_AS and value != _ONLY_AS[name]:
            raise InvalidRequest(f"{name}: only {_ONLY_AS[name]!r} is supported")
        if name not in _SAME | _WITHOUT_EFFECT | _OWN | _ONLY_AS.keys():
            raise InvalidRequest(f"{name[:64]}: not supported")
    asked = {name: value for name, value in said.items() if name in _SAME}
    if "max_completion_tokens" in said:
        asked["max_tokens"] = said["max_completion_tokens"]
    if isinstance(asked.get("messages"), list):
        asked["messages"] = [_message(message) for message in asked["messages"]]
    # Its clients cannot take back what they have shown: a worker that is lost in the middle ends the answer.
    asked.setdefault("on_worker_lost", "fail" if said.get("stream") else "restart")
    wish = ResponseOptions(
        stream=flag(said, "stream"),
        include_usage=flag(said.get("stream_options", {}), "include_usage", "stream_options."),
        ignored=tuple(sorted(said.keys() & _WITHOUT_EFFECT)),
    )
    return checked(ChatRequest, asked), wish


def _message(message: Any) -> Any:
    """Without what only people read (`name`), and what comes back from an answer of ours (`annotations`) or from an
    SDK's helper (`parsed`)."""
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
    """Without what only a cache reads (`prompt_cache_breakpoint`)."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    return {name: value for name, value in part.items() if name != "prompt_cache_breakpoint"}


def _call(call: Any) -> Any:
    """Without what an SDK's own helpers add (`index`, `parsed_arguments`)."""
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = {name: value for name, value in call["function"].items() if name != "parsed_arguments"}
    return {name: value for name, value in call.items() if name != "index"} | {"function": function}
