"""All errors that an HTTP response may contain, for the API description: generated from the error classes."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from gateway.auth.json_web_tokens import KeysUnreachable
from shared.errors import HeadraceError, LimitReached, RequestError, Unavailable
from shared.hooks import RequestRefused
from shared.rate_limits import LIMIT_NAMES


class ErrorInfo(NamedTuple):
    status: int
    when: str
    retryable: bool = False


def _described(kind: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    """Yield the subclasses with a description of their own."""
    for subclass in kind.__subclasses__():
        if "when" in vars(subclass):
            yield subclass
        yield from _described(subclass)


def _catalog() -> dict[str, ErrorInfo]:
    # Defined outside shared/errors.py: named here, so that they are subclasses by now.
    kinds: set[type[HeadraceError]] = {KeysUnreachable, RequestRefused}
    kinds |= {*_described(RequestError), *_described(Unavailable)} - {LimitReached}
    found = {kind.code: ErrorInfo(kind.http_status, kind.when, kind.retryable) for kind in kinds}
    for limit in LIMIT_NAMES:
        when = f"the limit {limit} is reached"
        found[LimitReached.code_of(limit)] = ErrorInfo(LimitReached.http_status, when, LimitReached.retryable)
    found["request_timeout"] = ErrorInfo(408, "the body was not received in time")  # raised by gateway/api/body.py
    return dict(sorted(found.items(), key=lambda item: (item[1].status, item[0])))


ERRORS: Final = _catalog()

#: Errors of a route that needs Redis.
BROKER: Final = ("broker_unavailable", "broker_auth", "broker_full", "broker_unfit")
#: Errors of a route that authenticates its caller, and reads for which user it acts.
CALLER: Final = (
    *("unauthenticated", "forbidden", "not_local", "origin_refused", "invalid_request"),
    *(*BROKER, "jwks_unreachable"),
)
#: Errors of a route for one stream.
STREAM: Final = (
    *("stream_not_found", "stream_gone", "stream_archived", "stream_recovering", "content_unreadable"),
    "archive_unavailable",
)
#: Errors of a route that creates a stream.
LIMITS: Final = (
    *(*map(LimitReached.code_of, LIMIT_NAMES), "budget_reached", "price_unknown", "queue_full"),
    *("request_refused", "hook_failed"),
)
#: Errors of a route with a body.
BODY: Final = ("invalid_json", "request_timeout", "body_too_large", "invalid_request", "overloaded")

Responses = dict[int | str, dict[str, Any]]


def error_responses(*codes: str) -> Responses:
    """Return ``responses=`` of a route: one for each status, with its codes as examples."""
    found: Responses = {}
    for status in sorted({ERRORS[code].status for code in codes}):
        of_status = sorted(code for code in set(codes) if ERRORS[code].status == status)
        found[status] = {
            "description": "; ".join(f"`{code}`: {ERRORS[code].when}" for code in of_status),
            "headers": _headers(status),
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/ErrorBody"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in of_status},
                }
            },
        }
    return found


def examples() -> dict[str, Any]:
    """Return the components that :func:`error_responses` refers to."""
    return {
        code: {
            "summary": f"{error.status} {HTTPStatus(error.status).phrase}",
            "value": {"error": {"code": code, "message": error.when, "retryable": error.retryable}},
        }
        for code, error in ERRORS.items()
    }


def _headers(status: int) -> dict[str, Any]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "absent for an invalid ticket"}}
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        return {"Retry-After": {"schema": {"type": "integer"}, "required": True, "description": "seconds"}}
    if status == HTTPStatus.PAYMENT_REQUIRED:
        description = "seconds; only if requests in progress hold the rest of the budget"
        return {"Retry-After": {"schema": {"type": "integer"}, "description": description}}
    return {}
