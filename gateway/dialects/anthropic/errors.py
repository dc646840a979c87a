"""Error responses in the format of Anthropic's SDKs."""

from http import HTTPStatus
from typing import Any, Final

from shared.errors import InvalidRequest
from shared.protocol.capabilities import CAPABILITIES

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
#: Errors with a different status in Anthropic's API, by our code.
_STATUSES: Final = {
    "unknown_model": 404,
    "invalid_request": 400,
    "unsupported_field": 400,
    "price_unknown": 400,
    "thread_unsupported_request": 400,
}
_OVERLOADED: Final = frozenset({"provider_unavailable", "provider_circuit_open", "queue_timeout"})


class ThreadsUnsupported(InvalidRequest):
    """A request for a server-side thread. The SDKs' tool runners try one first; on this code they send the whole
    history instead."""

    code = "thread_unsupported_request"


def answer(status: int, code: str, message: str, provider_code: str | None = None) -> tuple[int, dict[str, Any]]:
    """Return status and body."""
    message = with_capability(message, provider_code)
    status = _STATUSES.get(code, status)
    otherwise = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "api_error"
    body = body_of(_TYPES.get(status, otherwise), message)
    if code == ThreadsUnsupported.code:
        body["error"]["details"] = {"error_code": code, "unsupported": ["thread"]}
    return status, body


def body_of(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def with_capability(message: str, provider_code: object) -> str:
    """Add the reason of a refusal that Claude Code can act on, in the words of Anthropic's guide for gateways."""
    return f"{message} (capability_rejected: {provider_code})" if provider_code in CAPABILITIES else message


def type_of(code: str) -> str:
    """Return the type of an error within a stream."""
    if code == "provider_rate_limited":
        return "rate_limit_error"
    if code in {"provider_rejected", "unsupported_field"}:
        return "invalid_request_error"
    return "overloaded_error" if code in _OVERLOADED else "api_error"
