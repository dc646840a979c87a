"""Parser of OpenAI's Chat Completions requests.

Every field is accepted. The canonical request has what it can express; a provider of the same family gets the
original. Only what no provider could answer here is refused: several answers at once, and audio.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

from gateway.dialects.field_paths import client_path
from gateway.dialects.openai_chat.messages import messages_of
from gateway.dialects.openai_chat.reasoning import without_packed
from gateway.dialects.openai_chat.specific import Specific
from gateway.dialects.openai_chat.tools import tools_of
from gateway.dialects.options import ResponseOptions, flag
from shared.errors import InvalidRequest
from shared.schemas.chat import MAX_METADATA_ENTRIES, StoredRequest, parse_json_object, validate

#: Fields that only Headrace reads (`extra_body` of the SDKs), as is `provider` if it is a text.
_OURS: Final = frozenset(
    {
        "fallbacks",
        "on_disconnect",
        "grace_s",
        "on_worker_lost",
        "on_provider_lost",
        "unsupported_fields",
        "webhook_url",
    }
)
#: Fields of both formats.
_UNCHANGED: Final = frozenset(
    {
        *("model", "temperature", "max_tokens", "stop", "top_p", "frequency_penalty", "presence_penalty"),
        "parallel_tool_calls",
    }
)
#: Fields that get a form of their own below.
_CONVERTED: Final = frozenset(
    {
        *("messages", "tools", "tool_choice", "functions", "function_call", "response_format", "stream"),
        *("stream_options", "max_completion_tokens", "metadata", "seed", "user", "safety_identifier", "top_k"),
        *("reasoning_effort", "reasoning", "thinking"),
    }
)
#: Values that apply anyway, so their loss is none.
_WITHOUT_EFFECT: Final[Mapping[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
}
_EFFORTS: Final = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
_FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
_SEEDS: Final = range(-(2**63), 2**63)
_TOP_K: Final = range(1_000_001)
_LONGEST_USER: Final = 512
_LONGEST_KEY: Final = 64


def parse(body: bytes) -> tuple[StoredRequest, ResponseOptions]:
    """Return the canonical request, with the original, and the response options. Raises :class:`InvalidJson` and
    :class:`InvalidRequest`, which names the field."""
    original = parse_json_object(body)
    raw = {name: value for name, value in original.items() if value is not None}
    _refuse_impossible(raw)
    specific = Specific()
    fields = {name: value for name, value in raw.items() if name in _UNCHANGED | _OURS}
    if isinstance(raw.get("provider"), str):
        fields["provider"] = original.pop("provider")
        raw.pop("provider")  # an object is OpenRouter's
    has_effect = {name: value for name, value in raw.items() if value != _WITHOUT_EFFECT.get(name)}
    specific.add_others(has_effect, _UNCHANGED | _OURS | _CONVERTED)
    if "max_completion_tokens" in raw:
        fields["max_tokens"] = raw["max_completion_tokens"]
    if "messages" in raw:
        fields["messages"] = messages_of(raw["messages"], specific)
    fields |= tools_of(raw, specific) | _scalars(raw, specific) | _reasoning(raw, specific)
    fields |= _response_format(raw, specific)
    # Clients of this API cannot take back text that they show, so a streamed answer is resumed or ends.
    fields["fails_unless_resumed"] = bool(raw.get("stream"))
    options = ResponseOptions(
        stream=flag(raw, "stream"),
        include_usage=flag(raw.get("stream_options", {}), "include_usage", "stream_options."),
    )
    # `stream` is left out: it makes no other answer, so an idempotency key fits both.
    kept = without_packed({name: value for name, value in original.items() if name not in _OURS | {"stream"}})
    fields["original"] = {"family": "openai", "body": kept, "specific": specific.paths, "forced": specific.forced}
    names = {"max_tokens": "max_completion_tokens"} if "max_completion_tokens" in raw else {}
    return validate(StoredRequest, fields, path_of=client_path(fields, names)), options


def _refuse_impossible(raw: Mapping[str, Any]) -> None:
    if raw.get("n", 1) != 1:
        raise InvalidRequest("n: only 1 is supported, because a stream has one answer; omit the field")
    modalities = raw.get("modalities", [])
    if "audio" in raw or (isinstance(modalities, list) and "audio" in modalities):
        name = "audio" if "audio" in raw else "modalities"
        raise InvalidRequest(f"{name}: audio output is not supported; remove the field")


def _scalars(raw: Mapping[str, Any], specific: Specific) -> dict[str, Any]:
    """Return the fields of one value that the canonical request has within limits."""
    fields: dict[str, Any] = {}
    for name, allowed in (("seed", _SEEDS), ("top_k", _TOP_K)):
        if name in raw:
            if _is_whole(raw[name]) and int(raw[name]) in allowed:
                fields[name] = int(raw[name])
            else:
                specific.add(name)
    for name in ("user", "safety_identifier"):
        if name in raw:
            value = raw[name]
            if isinstance(value, str) and 0 < len(value) <= _LONGEST_USER and "user" not in fields:
                fields["user"] = value
            else:
                specific.add(name)
    if "metadata" in raw:
        if _is_metadata(raw["metadata"]):
            fields["metadata"] = raw["metadata"]
        else:
            specific.add("metadata")
    return fields


def _is_whole(value: object) -> TypeGuard[float]:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_metadata(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MAX_METADATA_ENTRIES
        and all(0 < len(key) <= _LONGEST_KEY for key in value)
        and all(isinstance(text, str) and len(text) <= _LONGEST_USER for text in value.values())
    )


def _reasoning(raw: Mapping[str, Any], specific: Specific) -> dict[str, Any]:
    """Return effort and budget: OpenAI's field, OpenRouter's `reasoning` or the `thinking` of Anthropic's form."""
    fields: dict[str, Any] = {}
    own, openrouter, thinking = raw.get("reasoning_effort"), raw.get("reasoning"), raw.get("thinking")
    if isinstance(openrouter, dict):
        own = own or openrouter.get("effort")
        fields |= _budget(openrouter.get("max_tokens"))
        specific.add_others(openrouter, {"effort", "max_tokens", "enabled"}, "reasoning")
    elif openrouter is not None:
        specific.add("reasoning")
    if isinstance(thinking, dict):
        fields = fields or _budget(thinking.get("budget_tokens"))
        if thinking.get("type") == "disabled":
            own = own or "none"
        elif not fields and own is None:
            specific.add("thinking")
    elif thinking is not None:
        specific.add("thinking")
    if isinstance(own, str) and own in _EFFORTS:
        fields["reasoning_effort"] = own
    elif own is not None:
        specific.add("reasoning_effort" if "reasoning_effort" in raw else "reasoning.effort")
    return fields


def _budget(tokens: object) -> dict[str, Any]:
    return {"reasoning_tokens": int(tokens)} if _is_whole(tokens) and int(tokens) > 0 else {}


def _response_format(raw: Mapping[str, Any], specific: Specific) -> dict[str, Any]:
    wanted = raw.get("response_format")
    if not isinstance(wanted, dict):
        return {} if wanted is None else {"response_format": wanted}
    if isinstance(kind := wanted.get("type"), str) and kind not in _FORMATS:
        specific.add("response_format")
        return {}
    made = {name: wanted[name] for name in ("type", "json_schema") if wanted.get(name) is not None}
    specific.add_others(wanted, {"type", "json_schema"}, "response_format")
    if isinstance(schema := made.get("json_schema"), dict):
        known = ("name", "description", "schema", "strict")
        specific.add_others(schema, known, "response_format", "json_schema")
        made["json_schema"] = {name: schema[name] for name in known if schema.get(name) is not None}
    return {"response_format": made}
