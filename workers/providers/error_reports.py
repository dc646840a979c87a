"""Reports of failures by providers, in all the shapes in which servers send them, reduced to one.

A report may be an ``error`` object, a text, an object with members of its own, a list, or a JSON text within another
report (a proxy that quotes its upstream). Its texts only help to classify it. They are never logged or passed on,
because providers echo prompts and parts of keys in them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_STATUS: Final = re.compile("[1-5][0-9]{2}")
#: A status in a text, such as "Error code: 429 - …" or "HTTP 503".
_STATUS_IN_TEXT: Final = re.compile(r"\b(?:code|status|http|error)\b[\s:=/1.]{0,8}([45][0-9]{2})\b", re.I)
#: Only the beginning of a text is searched: the rest may be a prompt.
_SEARCHED_CHARACTERS: Final = 300
#: Objects within objects, such as a proxy's report of its upstream's report.
_DEEPEST: Final = 5

_STATUS_MEMBERS: Final = ("status_code", "http_status", "http_code", "status", "code", "error_code")
KIND_MEMBERS: Final = ("code", "type", "error_type", "error_code", "status", "reason", "name", "__type")
TEXT_MEMBERS: Final = ("message", "error_message", "detail", "msg", "title", "description")
_INNER_MEMBERS: Final = (
    *("error", "errors", "metadata", "raw", "details", "innererror", "inner_error", "cause", "upstream_error"),
    *("provider_error", "response", "body", "data"),
)


def key_of(kind: str) -> str:
    """Kinds are compared in lower case, without separators and without a namespace."""
    return kind.strip().lower().replace("_", "").replace("-", "").replace(" ", "").rpartition(".")[2]


def keys_of(words: str) -> frozenset[str]:
    return frozenset(map(key_of, words.split()))


#: Kinds that providers name, by the HTTP status that they stand for.
_KINDS_BY_STATUS: Final = {
    400: """
        bad_request bad_request_error bad_request_exception invalid_request invalid_request_error invalid_argument
        failed_precondition out_of_range validation_exception validation_error invalid_parameter invalid_value
        invalid_parameter_error invalid_prompt unsupported_parameter unsupported_value unprocessable_entity
        unprocessable_entity_error value_error content_policy_violation content_filter data_inspection_failed
        input_validation_error invalid_image invalid_json_schema missing_required_parameter unknown_parameter
        extra_forbidden""",
    401: """
        authentication_error authentication_failed invalid_api_key incorrect_api_key invalid_authentication
        invalid_authentication_error unauthenticated unauthorized unauthorized_error missing_api_key""",
    403: """
        permission_error permission_denied permission_denied_error access_denied access_denied_exception forbidden
        account_deactivated insufficient_permissions""",
    404: """
        not_found not_found_error model_not_found model_not_found_error model_not_available model_not_exist
        resource_not_found_exception unknown_model invalid_model""",
    413: "request_too_large payload_too_large request_entity_too_large",
    429: """
        rate_limit rate_limit_error rate_limit_exceeded rate_limit_reached rate_limit_reached_error rate_limited
        insufficient_quota resource_exhausted too_many_requests too_many_requests_error throttling throttled
        throttling_exception quota_exceeded exceeded_current_quota_error service_quota_exceeded_exception
        limit_requests limit_burst_rate""",
    503: """
        overloaded overloaded_error unavailable service_unavailable service_unavailable_error
        service_unavailable_exception engine_overloaded engine_overloaded_error server_overloaded capacity_exceeded
        model_stream_error_exception model_not_ready_exception model_timeout_exception no_capacity over_capacity
        system_busy""",
    504: "timeout timeout_error gateway_timeout deadline_exceeded request_timeout timed_out",
}
_STATUS_BY_KIND: Final = {kind: status for status, words in _KINDS_BY_STATUS.items() for kind in keys_of(words)}
#: Kinds that name no cause. Any status or other kind beats them.
_VAGUE: Final = keys_of(
    """api_error server_error internal_error internal internal_server_error internal_server_exception
    upstream_error provider_error stream_error engine_error unknown unknown_error error exception"""
)
#: The model's tool call could not be read: another try can succeed.
_MALFORMED_CALL: Final = keys_of(
    """tool_use_failed malformed_function_call malformed_tool_call tool_call_parse_error output_parse_failed
    invalid_tool_call malformed_tool_use"""
)
_TOO_LONG_KINDS: Final = keys_of(
    """context_length_exceeded exceed_context_size_error context_window_exceeded context_window_exceeded_error
    max_context_length_exceeded string_too_long prompt_too_long model_max_prompt_tokens_exceeded"""
)
#: Texts of a request that is too long: many servers have no code for it.
_TOO_LONG: Final = re.compile(
    r"(prompt|input|request|conversation|message)s? (is|are) (too long|longer)|too many (input |prompt )?tokens"
    r"|context[ _-]?(length|window|size|limit)|maximum (prompt|model|context|input)[ _-]?(length|size|tokens)"
    r"|exceed\w* (the |this )?(model'?s? )?(max\w*|available|limit of)[\w ]{0,24}(context|tokens|prompt)",
    re.I,
)
_STATUS_BY_TEXT: Final = (
    (429, re.compile(r"rate.?limit|too many requests|quota|throttl", re.I)),
    (503, re.compile(r"overload|unavailable|capacity|timed? ?out|try again|temporar|busy", re.I)),
    (404, re.compile(r"model .{0,60}(not found|does not exist|not exist|not supported)|no such model", re.I)),
    (
        400,
        re.compile(
            r"bad request|invalid (request|parameter|argument|value|json|schema)|unsupported|validation", re.I
        ),
    ),
)


@dataclass(slots=True)
class ErrorReport:
    """One report. ``kinds`` are the provider's own codes and types, the outermost first; ``texts`` its messages;
    ``statuses`` all HTTP statuses in it."""

    kinds: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    param: object = None

    @property
    def is_too_long(self) -> bool:
        """True if the request was too long for the model."""
        if not _TOO_LONG_KINDS.isdisjoint(map(key_of, self.kinds)):
            return True
        return any(_TOO_LONG.search(text) for text in self.texts)

    @property
    def is_malformed_call(self) -> bool:
        return not _MALFORMED_CALL.isdisjoint(map(key_of, self.kinds))

    @property
    def status(self) -> int:
        """The HTTP status that the report stands for, by its kinds, its statuses or its texts, in this order."""
        for kind in map(key_of, self.kinds):
            if kind in _STATUS_BY_KIND:
                return _STATUS_BY_KIND[kind]
        precise = next((status for status in self.statuses if status >= 400 and status != 500), None)
        if precise is not None:
            return precise
        if 500 in self.statuses or not _VAGUE.isdisjoint(map(key_of, self.kinds)):
            return 500
        for text in self.texts:
            if found := _STATUS_IN_TEXT.search(text):
                return int(found[1])
        return next((status for status, words in _STATUS_BY_TEXT if any(map(words.search, self.texts))), 500)


def error_report(raw: object) -> ErrorReport:
    """Reduce a provider's error, in any shape, to one report."""
    report = ErrorReport()
    for level in levels_of(raw):
        if isinstance(level, str):
            report.texts.append(level[:_SEARCHED_CHARACTERS])
            continue
        report.statuses += [status for name in _STATUS_MEMBERS if (status := _status(level.get(name)))]
        report.kinds += [v for name in KIND_MEMBERS if isinstance(v := level.get(name), str) and not _status(v)]
        if report.param is None:
            report.param = level.get("param") or _location(level.get("loc"))
    return report


def levels_of(raw: Any, depth: int = 0) -> Iterator[Mapping[str, Any] | str]:
    """Yield the objects and the texts of a report, the outermost first."""
    if depth > _DEEPEST:
        return
    if isinstance(raw, str):
        yield from levels_of(_quoted(raw), depth + 1)
        yield raw
    elif isinstance(raw, Mapping):
        yield raw
        for name in (*TEXT_MEMBERS, *_INNER_MEMBERS):
            yield from levels_of(raw.get(name), depth + 1)
    elif isinstance(raw, list):
        for each in raw[:4]:
            yield from levels_of(each, depth + 1)


def _location(loc: object) -> str | None:
    """The path that pydantic reports, without the name of the body."""
    if not isinstance(loc, list):
        return None
    return ".".join(str(part) for part in loc if part != "body") or None


def _quoted(text: str) -> object:
    """The JSON object that a text contains, if any: proxies quote their upstream's report."""
    if (start := text.find("{")) < 0:
        return None
    try:
        return _decoder.raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def _status(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | str) and not isinstance(value, bool) and _STATUS.fullmatch(str(value).strip()):
        return int(value)
    return None


_decoder: Final = json.JSONDecoder()
