"""What an operator is told when a provider fails: one table from statuses and exceptions to error codes.

Messages are built from our own words, the provider's name, its host, the model's name and the status. Nothing that
came from upstream is ever in them: providers echo prompts and parts of keys in their errors.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from shared.errors import ProviderError

_STATUS: Final = re.compile("[0-9]{3}")
_MILLISECONDS: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Upstream:
    """Who is being talked to, as far as an error message may say. ``host`` carries no credentials."""

    name: str
    host: str
    key_variable: str
    url_variable: str


class StreamedError(Exception):
    """The provider says within the stream that it failed; ``code`` and ``type`` are its own words."""

    def __init__(self, code: object, type: object) -> None:
        super().__init__()
        self.code = code
        self.type = type


class RefusedError(Exception):
    """An HTTP status in place of an answer, from a provider without an SDK of its own."""

    def __init__(self, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__()
        self.status_code = status_code
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Row:
    code: str
    retryable: bool
    message: str


_AUTH: Final = _Row("provider_auth", False, "{name} refused the key ({how}): check {key_variable} on the workers")
_MODEL_NOT_FOUND: Final = _Row(
    "provider_model_not_found",
    False,
    "{name} has no model {model!r} ({how}): check the name, and {url_variable} on the workers",
)
_REJECTED: Final = _Row(
    "provider_rejected",
    False,
    "{name} rejected the request for {model!r} ({how}): check its parameters and its length",
)
_RATE_LIMITED: Final = _Row(
    "provider_rate_limited", True, "{name} limits the rate for {model!r} ({how}): check the account's limits"
)
_UNAVAILABLE: Final = _Row(
    "provider_unavailable", True, "{name} failed or is overloaded ({how}): check its status page or its log"
)
_UNREACHABLE: Final = _Row(
    "provider_unreachable",
    True,
    "cannot reach {name} at {host}: check {url_variable} on the workers and that it is running",
)
_CONNECT_TIMEOUT: Final = _Row(
    "provider_connect_timeout",
    True,
    "{name} at {host} did not take the connection in time: check {url_variable} and the network of the workers",
)
_TRUNCATED: Final = _Row("upstream_truncated", True, "{name} at {host} broke off in the middle of its answer")
_PROTOCOL: Final = _Row(
    "provider_protocol",
    False,
    "{name} at {host} did not speak its protocol: check that {url_variable} names such a server",
)

_BY_STATUS: Final[Mapping[int, _Row]] = {
    401: _AUTH,
    403: _AUTH,
    404: _MODEL_NOT_FOUND,
    408: _UNAVAILABLE,
    429: _RATE_LIMITED,
}

#: Errors inside a stream that began with HTTP 200 say what they are in ``type`` or ``code``.
_STATUS_BY_KIND: Final[Mapping[str, int]] = {
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    # vLLM's and SGLang's own.
    "BadRequestError": 400,
    "AuthenticationError": 401,
    "NotFoundError": 404,
    "RateLimitError": 429,
}

#: Looked up along an exception's MRO, most specific first. By name, because the SDKs and what is beneath them agree
#: on names, and because importing all of them here would cost every worker seconds. The rest is ``_PROTOCOL``: JSON
#: that is none, models of the wrong shape.
_BY_CLASS: Final[Mapping[str, _Row | None]] = {
    "TimeoutException": _CONNECT_TIMEOUT,
    "APITimeoutError": _CONNECT_TIMEOUT,
    "TimeoutError": _CONNECT_TIMEOUT,
    "DecodingError": _PROTOCOL,
    "APIResponseValidationError": _PROTOCOL,
    "APIConnectionError": _UNREACHABLE,
    "ClientPayloadError": _TRUNCATED,
    "ServerTimeoutError": _CONNECT_TIMEOUT,
    "ClientError": _UNREACHABLE,
    "HTTPError": _UNREACHABLE,
    "OSError": _UNREACHABLE,
    "StreamedError": None,  # its kind decides
    "APIError": None,
}


def provider_error(error: Exception, upstream: Upstream, *, model: str, started: bool) -> ProviderError:
    """``error`` is what an SDK raised; ``started`` says whether the response had begun."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        wait_s = retry_after_s(_headers_of(error))
        return _build(_row_for(status), upstream, model, how=f"HTTP {status}", retry_after_s=wait_s)
    row = _row_of(error)
    if row is None:
        return _build(_row_for(_status_within(error)), upstream, model, how="said within the stream")
    if row is _UNREACHABLE and started:
        row = _TRUNCATED
    return _build(row, upstream, model, how="")


def host_of(url: str) -> str:
    """``host[:port]`` of a URL, or of a bare ``host:port`` as ``OLLAMA_HOST`` has it; never user or password."""
    parts = urlsplit(url if "://" in url else f"//{url}")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _row_of(error: BaseException) -> _Row | None:
    """By the innermost cause that is known: the SDKs' transport calls any broken connection a timeout (measured)."""
    row: _Row | None = _PROTOCOL
    cause: BaseException | None = error
    while cause is not None:
        row = next((_BY_CLASS[c.__name__] for c in type(cause).__mro__ if c.__name__ in _BY_CLASS), row)
        cause = cause.__cause__
    return row


def _row_for(status: int) -> _Row:
    return _BY_STATUS.get(status) or (_UNAVAILABLE if status >= 500 else _REJECTED)


def _status_within(error: Exception) -> int:
    for kind in (getattr(error, "code", None), getattr(error, "type", None)):
        said = str(kind) if isinstance(kind, str | int) else ""
        if said in _STATUS_BY_KIND:
            return _STATUS_BY_KIND[said]
        if _STATUS.fullmatch(said):
            return int(said)
    return 500


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What a provider asks for: seconds or a date, or in the header of its own that says it finer."""
    if _MILLISECONDS.fullmatch(ms := headers.get("retry-after-ms", "")):
        return int(ms) / 1000
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None


def _headers_of(error: Exception) -> Mapping[str, str]:
    """The SDKs' errors carry the response."""
    return getattr(error, "headers", None) or getattr(getattr(error, "response", None), "headers", None) or {}


def _build(
    row: _Row, upstream: Upstream, model: str, *, how: str, retry_after_s: float | None = None
) -> ProviderError:
    message = row.message.format(
        name=upstream.name,
        host=upstream.host,
        key_variable=upstream.key_variable,
        url_variable=upstream.url_variable,
        model=model,
        how=how,
    )
    return ProviderError(row.code, message, retryable=row.retryable, retry_after_s=retry_after_s)
