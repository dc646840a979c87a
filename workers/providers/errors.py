"""Maps failures of providers to error codes: a table from statuses and exceptions to codes, one from codes to texts.

A :class:`ProviderError` has two texts. ``message`` is for clients: a constant for each code, with the names of the
provider and the model. ``detail`` is for operators, in the log: status, address, setting, and the provider's own
error code if it is a known one. Neither contains text from upstream: providers echo prompts and parts of keys."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from shared.errors import ProviderError
from workers.providers.error_codes import CONTEXT_LENGTH_EXCEEDED, OPERATOR_CODES, PUBLIC_CODES
from workers.providers.error_reports import ErrorReport, error_report
from workers.providers.rejected_capabilities import rejected_capability

_MILLISECONDS: Final = re.compile("[0-9]{1,9}")
_PARAM: Final = re.compile(r"[A-Za-z0-9_.\[\]]{1,64}")


@dataclass(frozen=True, slots=True)
class Upstream:
    """One provider's address and settings, for the detail of errors. ``host`` contains no credentials."""

    name: str
    host: str
    key_variable: str
    url_variable: str
    family: str


class StreamedError(Exception):
    """An error that the provider reported within a stream. ``report`` is whatever it sent."""

    def __init__(self, report: object) -> None:
        super().__init__()
        self.report = report


class RefusedError(Exception):
    """An HTTP error status instead of an answer, from a provider without an SDK of its own. ``body`` is parsed."""

    def __init__(self, status_code: int, headers: Mapping[str, str], body: object = None) -> None:
        super().__init__()
        self.status_code = status_code
        self.headers = headers
        self.body = body


class TokenUnavailable(ValueError):
    """A service gave no token for the provider."""

    def __init__(self, cause: str) -> None:
        super().__init__()
        self.cause = f"no token, {cause}"


class RedirectedError(ValueError):
    """A redirect that is not followed. ``target``: scheme and host, empty if it names none."""

    def __init__(self, status: int, target: str = "") -> None:
        super().__init__()
        self.cause = f"HTTP {status}, a redirect to {target or 'no valid address'}"


class TooLargeError(ValueError):
    """More data in one piece than is kept in memory. ``thing``: the piece."""

    def __init__(self, thing: str, most_bytes: int) -> None:
        self.cause = f"{thing} of more than {most_bytes // 1024**2} MiB"
        super().__init__(self.cause)


#: Codes that are worth a retry, with the message for clients.
_RETRYABLE: Final[Mapping[str, str]] = {
    "provider_rate_limited": "{name} limits the rate of requests for model {model!r}; try again later",
    "provider_unavailable": "{name} failed or is overloaded; try again later",
    "provider_unreachable": "{name} cannot be reached; try again later",
    "provider_connect_timeout": "{name} did not accept the connection in time; try again later",
    "provider_first_token_timeout": "{name} did not begin its answer in time; try again",
    "provider_idle_timeout": "{name} stopped sending its answer; try again",
    "provider_circuit_open": "{name} keeps failing and gets no requests for a while; try again later",
    "upstream_truncated": "{name} closed the connection before the answer was complete; try again",
    "provider_started_over": "{name} began its answer anew instead of going on with it; send the request again",
    "tool_call_invalid": "the model made a tool call that {name} could not read; try again",
}
_FINAL: Final[Mapping[str, str]] = {
    "provider_auth": "{name} refused access to model {model!r}; contact the operator of this service",
    "provider_model_not_found": "{name} has no model {model!r}; choose another one",
    "provider_not_configured": "{name} is not available; choose another provider or contact the operator",
    "provider_protocol": "{name} sent an invalid response; contact the operator of this service",
    "provider_rejected": "{name} rejected the request for model {model!r}; check its parameters and its length",
}
_TOO_LONG_MESSAGE: Final = "prompt is too long for the maximum context length of model {model!r}; shorten it"

_DETAILS: Final[Mapping[str, str]] = {
    "provider_auth": "{name} at {host} refused the key ({cause}); check {key_variable} on the workers",
    "provider_model_not_found": "{name} at {host} has no model {model!r} ({cause}); check {url_variable}",
    "provider_rejected": "{name} at {host} rejected the request for {model!r} ({cause})",
    "provider_rate_limited": "{name} at {host} limits the rate for {model!r} ({cause}); check the account's limits",
    "provider_unavailable": "{name} at {host} failed or is overloaded ({cause}); check its status page or its log",
    "provider_unreachable": "{name} at {host} cannot be reached ({cause}); check {url_variable} on the workers",
    "provider_connect_timeout": "{name} at {host} did not accept the connection in time ({cause}); check "
    "{url_variable} and the network of the workers",
    "upstream_truncated": "{name} at {host} closed the connection within its answer ({cause})",
    "tool_call_invalid": "{name} at {host} could not read the tool call that {model!r} made ({cause})",
    "provider_protocol": "{name} at {host} sent an invalid response ({cause}); check that {url_variable} is the "
    "address of such a server",
}

_BY_STATUS: Final[Mapping[int, str]] = {
    401: "provider_auth",
    403: "provider_auth",
    404: "provider_model_not_found",
    408: "provider_unavailable",
    429: "provider_rate_limited",
}

#: Looked up along an exception's MRO, most specific first. By name, because the SDKs and their transports use the
#: same names, and because importing all of them here would cost every worker seconds. All other exceptions are
#: ``provider_protocol``: invalid JSON, models of the wrong shape.
_BY_CLASS: Final[Mapping[str, str | None]] = {
    "TimeoutException": "provider_connect_timeout",
    "APITimeoutError": "provider_connect_timeout",
    "TimeoutError": "provider_connect_timeout",
    "DecodingError": "provider_protocol",
    "APIResponseValidationError": "provider_protocol",
    "APIConnectionError": "provider_unreachable",
    "ClientPayloadError": "upstream_truncated",
    "ServerTimeoutError": "provider_connect_timeout",
    "ClientError": "provider_unreachable",
    "HTTPError": "provider_unreachable",
    "OSError": "provider_unreachable",
    "CutOffError": "upstream_truncated",
    "StreamedError": None,  # the report decides
    "APIError": None,
}
#: Codes with which a provider refuses the key itself, and not what it may do, under any status.
_INVALID_KEY: Final = frozenset({"account_deactivated", "authentication_error", "invalid_api_key"})
#: Members of an SDK's error, if the response had no body.
_ERROR_MEMBERS: Final = ("code", "type", "param", "message")
#: Only these codes come from the request, so that clients may see the provider's own code and parameter.
_ABOUT_REQUEST: Final = frozenset({"provider_rejected", "provider_model_not_found", "provider_rate_limited"})


def provider_failure(
    code: str,
    provider: str,
    *,
    model: str = "",
    detail: str,
    retry_after_s: float | None = None,
    provider_code: str | None = None,
    param: str | None = None,
    refuses_key: bool = False,
) -> ProviderError:
    """Build the error for ``code``, with the message that clients see."""
    message = _RETRYABLE.get(code) or _FINAL[code]
    if provider_code == CONTEXT_LENGTH_EXCEEDED:
        message = _TOO_LONG_MESSAGE
    return ProviderError(
        code,
        message.format(name=provider, model=model),
        retryable=code in _RETRYABLE,
        retry_after_s=retry_after_s,
        detail=detail,
        provider_code=provider_code,
        param=param,
        refuses_key=refuses_key,
    )


def provider_error(error: Exception, upstream: Upstream, *, model: str, started: bool) -> ProviderError:
    """Convert ``error``, raised by an SDK. ``started``: the response had begun."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        wait_s = retry_after_s(_headers_of(error))
        return _reported(error, status, f"HTTP {status}", upstream, model, wait_s)
    code, cause = _code_and_cause(error)
    if code is None:
        return _reported(error, error_report(raw_report(error)).status, "within the stream", upstream, model, None)
    if code == "provider_unreachable" and started:
        code = "upstream_truncated"
    return provider_failure(code, upstream.name, model=model, detail=_detail(code, upstream, model, cause))


def host_of(url: str) -> str:
    """Return ``host[:port]`` of a URL or of a bare ``host:port`` such as ``OLLAMA_HOST``, without user and
    password."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the wait that a provider requests: milliseconds in a header of its own, or seconds or a date."""
    if _MILLISECONDS.fullmatch(ms := headers.get("retry-after-ms", "")):
        return int(ms) / 1000
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):  # OverflowError: a number beyond 64 bits
        return None


def _reported(
    error: Exception, status: int, source: str, upstream: Upstream, model: str, wait_s: float | None
) -> ProviderError:
    """Build the error for a failure that the provider itself reported."""
    report = error_report(raw_report(error))
    code = _BY_STATUS.get(status) or ("provider_unavailable" if status >= 500 else "provider_rejected")
    provider_code = param = None
    if report.is_malformed_call:
        code = "tool_call_invalid"
    elif code in {"provider_rejected", "provider_unavailable"} and report.is_too_long:
        code, provider_code, param = "provider_rejected", CONTEXT_LENGTH_EXCEEDED, _param(report) or "messages"
    elif code in _ABOUT_REQUEST:
        provider_code = next((kind for kind in report.kinds if kind in PUBLIC_CODES), None)
        if code == "provider_rejected":
            provider_code = provider_code or rejected_capability(report)
        param = _param(report)
    known = provider_code or next((kind for kind in report.kinds if kind in OPERATOR_CODES), None)
    detail = _detail(code, upstream, model, f"{source}, {known}" if known else source)
    return provider_failure(
        code,
        upstream.name,
        model=model,
        detail=detail,
        retry_after_s=wait_s,
        provider_code=provider_code,
        param=param,
        refuses_key=code == "provider_auth" and (status == 401 or not _INVALID_KEY.isdisjoint(report.kinds)),
    )


def _detail(code: str, upstream: Upstream, model: str, cause: str) -> str:
    return _DETAILS[code].format(
        name=upstream.name,
        host=upstream.host,
        key_variable=upstream.key_variable,
        url_variable=upstream.url_variable,
        model=model,
        cause=cause,
    )


def _code_and_cause(error: BaseException) -> tuple[str | None, str]:
    """Return the code of the innermost known cause, and its class: the SDKs' transport reports any broken connection
    as a timeout (measured)."""
    code: str | None = "provider_protocol"
    name = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RedirectedError | TooLargeError):
            return "provider_protocol", cause.cause
        if isinstance(cause, TokenUnavailable):
            return "provider_auth", cause.cause
        for kind in type(cause).__mro__:
            if kind.__name__ in _BY_CLASS:
                code, name = _BY_CLASS[kind.__name__], type(cause).__name__
                break
        cause = cause.__cause__
    return code, name


def raw_report(error: Exception) -> object:
    """Return the provider's own report: within a stream, or as the body of an error status."""
    if isinstance(error, StreamedError):
        return error.report
    body = getattr(error, "body", None)
    return body if body is not None else {name: getattr(error, name, None) for name in _ERROR_MEMBERS}


def _param(report: ErrorReport) -> str | None:
    """Return the field that the provider names, if it looks like one."""
    return report.param if isinstance(report.param, str) and _PARAM.fullmatch(report.param) else None


def _headers_of(error: Exception) -> Mapping[str, str]:
    """Return the response's headers, which the SDKs' errors carry."""
    return getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}
