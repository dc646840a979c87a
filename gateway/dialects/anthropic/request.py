"""Parser of Anthropic's Messages requests.

The body is kept as it came, for a provider of Anthropic's family. All other providers get the canonical fields.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.dialects.anthropic.errors import ThreadsUnsupported
from gateway.dialects.anthropic.messages import messages_of, system_of, without_ours
from gateway.dialects.anthropic.specific_paths import SpecificPaths
from gateway.dialects.anthropic.tools import choice_of, tools_of
from gateway.dialects.options import ResponseOptions, flag
from shared.errors import InvalidRequest
from shared.schemas.chat import StoredRequest, parse_json_object, validate
from shared.schemas.refusals import missing_field

#: Fields that only Headrace reads.
_OWN: Final = frozenset(
    {
        *("provider", "fallbacks", "on_disconnect", "grace_s", "on_worker_lost", "on_provider_lost", "webhook_url"),
        "unsupported_fields",
    }
)
_UNCHANGED: Final = frozenset({"model", "max_tokens", "temperature", "top_p", "top_k"}) | _OWN
_TRANSLATED: Final = frozenset(
    {
        *("messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config"),
        *("output_format", "stream", "metadata"),
    }
)
#: Prefix of the headers that the provider reads too. Agents send new ones before any gateway knows them.
_HEADERS: Final = "anthropic-"
_EFFORTS: Final = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})
#: Largest budget of thinking tokens for each reasoning effort; `high` above.
_EFFORT_BY_BUDGET: Final = ((4_096, "low"), (16_384, "medium"))
_LARGEST_BUDGET: Final = 10_000_000
_LONGEST_USER: Final = 512
_MOST_STOPS: Final = 16
#: The path before a problem of the canonical request.
_PROBLEM: Final = re.compile(r"(?:^|(?<=; ))(messages|tools)\.(\d+)((?:\.\w+)*)")
_CANONICAL_NAMES: Final = {"function": "", "parameters": ".input_schema"}
Body = dict[str, Any]


def parse(
    body: bytes, headers: Mapping[str, str] | None = None, *, only_count: bool = False
) -> tuple[StoredRequest, ResponseOptions]:
    """Return the request and the response options. ``only_count``: the request asks for its number of tokens, not for
    an answer. Raises :class:`InvalidJson` and :class:`InvalidRequest`, which names the field."""
    whole = parse_json_object(body)
    raw = {name: value for name, value in whole.items() if value is not None}
    if "thread" in raw:
        raise ThreadsUnsupported("thread: not supported; send all messages")
    if "max_tokens" not in raw and not only_count:
        raise missing_field("max_tokens", raw.keys() - _UNCHANGED - _TRANSLATED)
    specific = SpecificPaths()
    specific.note_others("", raw, _UNCHANGED | _TRANSLATED)
    system = [("system", message) for message in system_of("system", raw.get("system", ""), specific)]
    if "messages" not in raw:
        raise missing_field("messages", raw.keys() - _UNCHANGED - _TRANSLATED)
    messages = [*system, *messages_of(raw["messages"], specific)]
    tools = list(tools_of(raw.get("tools"), specific))
    names = frozenset(tool["function"]["name"] for _, tool in tools)
    stream = flag(raw, "stream")
    fields: Body = {
        **{name: value for name, value in raw.items() if name in _UNCHANGED},
        **choice_of(raw.get("tool_choice"), names, specific),
        **_reasoning(raw, specific),
        **_format(raw, specific),
        **_user(raw.get("metadata"), specific),
        **_stops(raw.get("stop_sequences"), specific),
        "messages": [message for _, message in messages],
    }
    if tools:
        fields["tools"] = [tool for _, tool in tools]
    if only_count:
        fields["only_count"] = True
    # Clients of this API cannot take back text that they show, so a streamed answer is resumed or ends.
    fields["fails_unless_resumed"] = stream
    fields["original"] = _original(whole, headers or {}, specific)
    paths = {"messages": [path for path, _ in messages], "tools": [path for path, _ in tools]}
    try:
        return validate(StoredRequest, fields), ResponseOptions(stream)
    except InvalidRequest as error:
        raise InvalidRequest(_PROBLEM.sub(lambda found: _clients_path(found, paths), str(error))) from None


def _original(whole: Body, headers: Mapping[str, str], specific: SpecificPaths) -> Body:
    # `stream` is left out: it makes no other answer, so an idempotency key fits both.
    body = {name: value for name, value in whole.items() if name not in _OWN | {"stream"}}
    if isinstance(body.get("messages"), list):
        body["messages"] = without_ours(body["messages"])
    return {
        "family": "anthropic",
        "body": body,
        "headers": _headers_of(headers),
        "specific": list(specific),
        "forced": specific.forced,
    }


def _headers_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for the provider. A header of several lines is a list."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(_HEADERS):
            if not (value.isascii() and value.isprintable()):
                raise InvalidRequest(f"{name}: must be printable ASCII")
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _clients_path(found: re.Match[str], paths: dict[str, list[str]]) -> str:
    """Return the client's own path of a canonical one: the message or the tool, and within a tool the field."""
    kind, number, rest = found[1], int(found[2]), found[3]
    if number >= len(paths[kind]):
        return found[0]
    path = paths[kind][number]
    if kind == "messages":
        return path
    within = (_CANONICAL_NAMES.get(name, f".{name}") for name in rest.split(".")[1:])
    return path + "".join(within)


def _reasoning(raw: Body, specific: SpecificPaths) -> Body:
    config, thinking = raw.get("output_config"), raw.get("thinking")
    fields: Body = {}
    if thinking is not None:
        fields = _thinking(thinking, specific)
    if config is None:
        return fields
    if not isinstance(config, dict):
        raise InvalidRequest("output_config: must be an object")
    specific.note_others("output_config.", config, {"effort", "format"})
    match config.get("effort"):
        case None:
            pass
        case str(effort) if effort in _EFFORTS:
            fields["reasoning_effort"] = effort
        case str():
            specific.note("output_config.effort")
        case _:
            raise InvalidRequest("output_config.effort: must be a text")
    return fields


def _thinking(thinking: Any, specific: SpecificPaths) -> Body:
    if not isinstance(thinking, dict) or not isinstance(kind := thinking.get("type"), str):
        raise InvalidRequest("thinking.type: must be a text")
    specific.note_others("thinking.", thinking, {"type", "budget_tokens"})
    match kind:
        case "enabled":
            budget = thinking.get("budget_tokens")
            if not isinstance(budget, int) or isinstance(budget, bool) or not 0 < budget <= _LARGEST_BUDGET:
                raise InvalidRequest("thinking.budget_tokens: must be an integer from 1 to 10000000")
            effort = next((effort for limit, effort in _EFFORT_BY_BUDGET if budget <= limit), "high")
            return {"reasoning_tokens": budget, "reasoning_effort": effort}
        case "adaptive":
            return {"reasoning_effort": "medium"}
        case "disabled":
            return {}
    specific.note("thinking.type")
    return {}


def _format(raw: Body, specific: SpecificPaths) -> Body:
    """Return the canonical form of the answer. ``output_format`` is the older name of ``output_config.format``."""
    config = raw.get("output_config")
    path, output_format = "output_format", raw.get("output_format")
    if isinstance(config, dict) and config.get("format") is not None:
        path, output_format = "output_config.format", config["format"]
    match output_format:
        case None:
            return {}
        case {"type": "json_schema", "schema": dict(schema)}:
            specific.note_others(f"{path}.", output_format, {"type", "schema"})
            return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}
        case {"type": str(kind)} if kind != "json_schema":
            specific.note(path)
            return {}
    raise InvalidRequest(f"{path}: must have the type json_schema and a schema")


def _user(metadata: Any, specific: SpecificPaths) -> Body:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise InvalidRequest("metadata: must be an object")
    specific.note_others("metadata.", metadata, {"user_id"})
    user = metadata.get("user_id")
    if isinstance(user, str) and 0 < len(user) <= _LONGEST_USER:
        return {"user": user}
    if user is not None:
        specific.note("metadata.user_id")
    return {}


def _stops(stops: Any, specific: SpecificPaths) -> Body:
    """Return the stop sequences. Those beyond the canonical limits pass to the same family only."""
    if stops is None:
        return {}
    if not isinstance(stops, list):
        raise InvalidRequest("stop_sequences: must be a list of texts")
    for at, stop in enumerate(stops):
        if not isinstance(stop, str):
            raise InvalidRequest(f"stop_sequences.{at}: must be a text")
    fitting = [stop for stop in stops if 0 < len(stop) <= 256][:_MOST_STOPS]
    if len(fitting) < len(stops):
        specific.note("stop_sequences")
    return {"stop": fitting} if fitting else {}
