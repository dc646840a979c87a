"""Every error that an HTTP answer may carry, for the description of the API: status, when, and whether to try again.

``tests/test_openapi.py`` holds it against ``shared/errors.py`` and against what a gateway really answers.
"""

from http import HTTPStatus
from typing import Any, Final, NamedTuple

from shared.rate_limits import LIMIT_NAMES


class Problem(NamedTuple):
    status: int
    when: str
    retryable: bool = False


PROBLEMS: Final[dict[str, Problem]] = {
    "invalid_json": Problem(400, "the body is not UTF-8 JSON"),
    "unknown_model": Problem(400, "no worker offers that provider or model"),
    "invalid_last_event_id": Problem(400, "the cursor is not an event id"),
    "unauthenticated": Problem(401, "no credentials, or none that are good here"),
    "invalid_ticket": Problem(
        401, "the ticket is forged, has expired, is of a revoked key, or is for another stream"
    ),
    "forbidden": Problem(403, "the credentials lack the scope for this, or another site's page asks"),
    "stream_not_found": Problem(404, "there is no such stream, or it is someone else's"),
    "request_timeout": Problem(408, "the body did not come in time"),
    "idempotency_conflict": Problem(409, "the Idempotency-Key was used before with another body"),
    "stream_gone": Problem(410, "the stream was deleted, or its retention has ended"),
    "body_too_large": Problem(413, "the body is larger than HEADRACE_MAX_BODY_BYTES"),
    "invalid_request": Problem(422, "a field or parameter is unknown, missing or wrong; the message names it"),
    "requests_per_minute_exceeded": Problem(429, "so many requests were there within this minute", retryable=True),
    "tokens_per_minute_exceeded": Problem(429, "so many tokens are taken within this minute", retryable=True),
    "tokens_per_day_exceeded": Problem(429, "so many tokens are taken today (UTC)", retryable=True),
    "concurrent_streams_exceeded": Problem(429, "so many streams run or wait at once", retryable=True),
    "broker_unavailable": Problem(503, "Redis does not answer", retryable=True),
    "broker_unfit": Problem(503, "Redis is too old, or would evict answers", retryable=True),
    "content_unreadable": Problem(503, "this gateway lacks the key that the answer is stored under", retryable=True),
    "draining": Problem(503, "this gateway is leaving; others are there", retryable=True),
    "jwks_unreachable": Problem(503, "the keys that tokens are verified with cannot be fetched", retryable=True),
    "no_models": Problem(503, "no worker has said yet what it offers", retryable=True),
    "queue_full": Problem(503, "too many requests wait already", retryable=True),
    "stream_recovering": Problem(503, "Redis just lost the stream; its worker may bring it back", retryable=True),
}

#: What a route answers whose caller has to say who he is.
CALLER: Final = ("unauthenticated", "forbidden", "broker_unavailable", "jwks_unreachable")
#: What a route answers that is about a stream.
STREAM: Final = ("stream_not_found", "stream_gone", "stream_recovering", "content_unreadable")
#: What a route answers that makes a stream.
LIMITS: Final = (
    *(f"{limit}_exceeded" for limit in LIMIT_NAMES),
    "queue_full",
)
#: What a route answers that takes a body.
BODY: Final = ("invalid_json", "request_timeout", "body_too_large", "invalid_request")

Responses = dict[int | str, dict[str, Any]]


def refusals(*codes: str) -> Responses:
    """For ``responses=`` of a route: one for each status, with its codes as examples."""
    found: Responses = {}
    for status in sorted({PROBLEMS[code].status for code in codes}):
        mine = sorted(code for code in codes if PROBLEMS[code].status == status)
        found[status] = {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].when}" for code in mine),
            "headers": _headers(status),
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/ErrorBody"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in mine},
                }
            },
        }
    return found


def examples() -> dict[str, Any]:
    """The components that :func:`refusals` refers to."""
    return {
        code: {
            "summary": f"{problem.status} {HTTPStatus(problem.status).phrase}",
            "value": {"error": {"code": code, "message": problem.when, "retryable": problem.retryable}},
        }
        for code, problem in PROBLEMS.items()
    }


def _headers(status: int) -> dict[str, Any]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "not where a ticket was refused"}}
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        return {"Retry-After": {"schema": {"type": "integer"}, "required": True, "description": "seconds"}}
    return {}
