"""Every error a user can meet, in one tree.

HeadraceError
├── RequestError            the caller can mend it; answered before anything is queued
│   ├── InvalidJson             400  the body is not UTF-8 JSON
│   ├── UnknownModel            400  no worker offers that provider or model
│   ├── InvalidLastEventId      400  the cursor is not an event id
│   ├── Unauthenticated         401  no credentials, or none that are good here
│   ├── InvalidTicket           401  forged, expired, or for another stream
│   ├── Forbidden               403  the credentials are good and do not reach so far
│   ├── StreamNotFound          404  never existed, or is someone else's
│   ├── IdempotencyConflict     409  the key was used with another body
│   ├── StreamGone              410  past retention, or deleted
│   ├── BodyTooLarge            413
│   ├── LimitReached            429  Retry-After says when there is room
│   └── InvalidRequest          422  a field is unknown, missing or wrong
├── Unavailable             503  Retry-After is sent; nothing was lost
│   ├── BrokerUnavailable           Redis does not answer
│   ├── StreamRecovering            Redis lost the stream; its worker may bring it back
│   ├── ContentUnreadable           it is sealed under a key that this process has not
│   ├── NoModels                    no worker has said what it offers
│   ├── QueueFull                   too many wait already, or would wait for too long
│   └── Draining                    this gateway is leaving
└── GenerationError         ends a stream with ``error`` + ``done``; never an HTTP status of its own
    └── ProviderError           the provider refused, failed or broke off

Messages name what is wrong and never carry a prompt, an answer or a key.
"""

from typing import ClassVar


class HeadraceError(Exception):
    """``code`` is stable and for machines, ``retryable`` says whether the same call may succeed later."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(HeadraceError):
    code = "invalid_request"
    http_status = 422


class InvalidJson(RequestError):
    code = "invalid_json"
    http_status = 400


class UnknownModel(RequestError):
    code = "unknown_model"
    http_status = 400


class InvalidLastEventId(RequestError):
    code = "invalid_last_event_id"
    http_status = 400


class Unauthenticated(RequestError):
    code = "unauthenticated"
    http_status = 401


class InvalidTicket(RequestError):
    code = "invalid_ticket"
    http_status = 401


class Forbidden(RequestError):
    code = "forbidden"
    http_status = 403


class StreamNotFound(RequestError):
    code = "stream_not_found"
    http_status = 404

    def __init__(self, message: str = "there is no such stream") -> None:
        super().__init__(message)


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"
    http_status = 409


class StreamGone(RequestError):
    code = "stream_gone"
    http_status = 410

    def __init__(self, message: str = "the stream was deleted or its retention has ended") -> None:
        super().__init__(message)


class BodyTooLarge(RequestError):
    code = "body_too_large"
    http_status = 413


class InvalidRequest(RequestError):
    code = "invalid_request"
    http_status = 422


class LimitReached(RequestError):
    """``limit`` is one of :data:`shared.limits.LIMIT_NAMES`, ``headers`` say how much there was and is left."""

    http_status = 429
    retryable = True

    def __init__(self, limit: str, message: str, headers: dict[str, str]) -> None:
        super().__init__(message)
        self.code = f"{limit}_exceeded"  # type: ignore[misc]  # each limit has its own
        self.headers = headers


class Unavailable(HeadraceError):
    """``retry_after_s`` becomes the ``Retry-After`` header."""

    code = "unavailable"
    http_status = 503
    retryable = True
    retry_after_s: int = 2


class BrokerUnavailable(Unavailable):
    code = "broker_unavailable"

    def __init__(self, message: str = "Redis does not answer; try again shortly") -> None:
        super().__init__(message)


class StreamRecovering(Unavailable):
    code = "stream_recovering"

    def __init__(self, message: str = "Redis had trouble a moment ago; the stream may come back") -> None:
        super().__init__(message)


class ContentUnreadable(Unavailable):
    code = "content_unreadable"

    def __init__(self, message: str = "this gateway lacks the key that the answer is stored under") -> None:
        super().__init__(message)


class NoModels(Unavailable):
    code = "no_models"

    def __init__(self, message: str = "no worker has said yet which models it offers") -> None:
        super().__init__(message)


class QueueFull(Unavailable):
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Draining(Unavailable):
    code = "draining"

    def __init__(self, message: str = "this gateway is shutting down; try again") -> None:
        super().__init__(message)


class GenerationError(HeadraceError):
    """Ends one stream. The instance carries its code, since the set is open to providers."""

    def __init__(self, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # a per-instance code is the point of this branch
        self.retryable = retryable  # type: ignore[misc]


class ProviderError(GenerationError):
    """``retry_after_s``: what the provider asked for. Codes: ``provider_auth`` ``provider_model_not_found``
    ``provider_rejected`` ``provider_rate_limited`` ``provider_unavailable`` ``provider_unreachable``
    ``provider_connect_timeout`` ``provider_first_token_timeout`` ``provider_idle_timeout`` ``provider_protocol``
    ``provider_not_configured`` ``provider_circuit_open`` ``tool_call_invalid`` ``upstream_truncated``.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(code, message, retryable=retryable)
        self.retry_after_s = retry_after_s
