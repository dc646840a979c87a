"""All errors that a user can meet, in one tree. ``when`` of each class describes it.

HeadraceError
├── RequestError            the caller can correct it; raised before anything is queued
│   ├── InvalidJson             400
│   ├── UnknownModel            400
│   ├── InvalidLastEventId      400
│   ├── Unauthenticated         401
│   ├── InvalidTicket           401
│   ├── Forbidden               403
│   │   ├── NotLocal                403
│   │   └── OriginRefused           403
│   ├── ModelNotAllowed         403
│   ├── FieldNotAllowed         403
│   ├── BudgetReached           402  with Retry-After, if requests in progress hold the rest
│   ├── StreamNotFound          404
│   ├── ChatNotFound            404
│   ├── IdempotencyConflict     409
│   ├── ChatBusy                409
│   ├── StreamGone              410
│   │   └── StreamArchived          410
│   ├── ChatGone                410
│   ├── BodyTooLarge            413
│   ├── LimitReached            429  with Retry-After
│   ├── TooManyConnections      429  with Retry-After
│   ├── TooManyResponses        429  with Retry-After
│   ├── ConnectionTooOld        400
│   ├── PriceUnknown            422
│   ├── RequestRefused          422  in hooks.py
│   ├── UnsupportedField        422
│   └── InvalidRequest          422
│       └── PreviousResponseNotFound 422
├── Unavailable             503  with Retry-After; nothing was lost
│   ├── BrokerUnavailable
│   │   ├── BrokerAuth
│   │   ├── BrokerFull
│   │   └── BrokerUnfit
│   │       └── BrokerMisconfigured   ends the process
│   ├── ArchiveUnavailable
│   ├── StreamRecovering
│   ├── ContentUnreadable
│   ├── NoModels
│   ├── QueueFull
│   ├── Overloaded
│   ├── HookFailed
│   └── Draining
└── GenerationError         ends a stream with ``error`` + ``done``; has no HTTP status of its own
    └── ProviderError           the provider refused, failed or disconnected

``message`` is for clients: it names the problem and a remedy, and contains no prompt, answer, key, address or
setting. ``detail`` is for operators and only logged: it has the cause and the setting.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final

LONGEST_ORIGIN: Final = 128


class HeadraceError(Exception):
    """Base class of all errors here. ``code`` is stable and for machines. ``retryable``: the same call may succeed
    later."""

    code: str = "internal_error"
    http_status: int = 500
    retryable: bool = False
    message: str = "internal error"
    detail: str = ""
    #: Further fields of the line that logs ``detail``.
    log_fields: Mapping[str, str] = MappingProxyType({})
    #: Description in the API reference.
    when: ClassVar[str]

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        if message is not None:
            self.message = message
        if detail is not None:
            self.detail = detail
        super().__init__(self.message)


class RequestError(HeadraceError):
    code = "invalid_request"
    http_status = 422


class InvalidJson(RequestError):
    code = "invalid_json"
    http_status = 400
    when = "the body is not UTF-8 JSON"


class UnknownModel(RequestError):
    code = "unknown_model"
    http_status = 400
    when = "the provider or model is not available"


class InvalidLastEventId(RequestError):
    code = "invalid_last_event_id"
    http_status = 400
    when = "the cursor is not an event id"


class Unauthenticated(RequestError):
    code = "unauthenticated"
    http_status = 401
    when = "credentials are missing or invalid"


class InvalidTicket(RequestError):
    code = "invalid_ticket"
    http_status = 401
    when = "the ticket is forged, has expired, was revoked, or is for another stream"


class Forbidden(RequestError):
    code = "forbidden"
    http_status = 403
    when = "the credentials lack the scope, or X-Headrace-User is not accepted here"


class NotLocal(Forbidden):
    code = "not_local"
    when = "authentication is disabled, and the request does not come directly from the same machine"


class OriginRefused(Forbidden):
    """``origin``: of the page, only for the log."""

    code = "origin_refused"
    when = "the request is of another site's page: a preflight, with a cookie, or while authentication is disabled"

    def __init__(self, message: str | None = None, *, detail: str | None = None, origin: str | None = None) -> None:
        super().__init__(message, detail=detail)
        self.log_fields = {} if origin is None else {"origin": origin[:LONGEST_ORIGIN]}


class ModelNotAllowed(RequestError):
    code = "model_not_allowed"
    http_status = 403
    when = "the credentials do not allow the model"


class FieldNotAllowed(RequestError):
    code = "field_not_allowed"
    http_status = 403
    when = "the credentials or the server do not allow a field of the request; the message names it"


class StreamNotFound(RequestError):
    code = "stream_not_found"
    http_status = 404
    message = "stream: not found; check its id and your credentials"
    when = "the stream does not exist, or belongs to another owner"


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"
    http_status = 409
    when = "the Idempotency-Key was used before with another body"


class ChatNotFound(RequestError):
    code = "chat_not_found"
    http_status = 404
    message = "chat_id: no such chat; check it and your credentials, or send all messages with history: given"
    when = "the chat does not exist, belongs to another owner, or was forgotten"


class ChatBusy(RequestError):
    """A turn of the chat is being answered or accepted. ``members``: of the error's body, about that turn."""

    code = "chat_busy"
    http_status = 409
    retryable = True
    message = "chat_id: the chat's last turn has not ended; read or cancel it at stream_url, then try again"
    when = "the last turn of the chat has not ended; its stream_id and stream_url are in the error"

    def __init__(self, *, stream_id: str | None = None, stream_url: str | None = None) -> None:
        known = {"stream_id": stream_id, "stream_url": stream_url}
        self.members = {name: value for name, value in known.items() if value is not None}
        unknown = "chat_id: another request of this chat is being accepted; try again"
        super().__init__(None if self.members else unknown)


class ChatGone(RequestError):
    code = "chat_gone"
    http_status = 410
    message = "chat_id: the earlier messages of this chat are gone; send all messages with history: given"
    when = "the earlier messages of the chat are gone: its last stream was deleted or dropped, or its retention ended"


class StreamGone(RequestError):
    code = "stream_gone"
    http_status = 410
    message = "the stream was deleted, was dropped to free storage, or its retention has ended"
    when = "the stream was deleted, was dropped to free storage, or its retention has ended"

    def __init__(self, message: str | None = None, *, is_deleted: bool = False) -> None:
        super().__init__(message)
        self.is_deleted = is_deleted


class StreamArchived(StreamGone):
    """Only the archive has the stream, and here it cannot be streamed. ``status_url``: path of the answer."""

    code = "stream_archived"
    when = "the stream is in the archive only; its answer is at `status_url`"

    def __init__(self, status_url: str) -> None:
        super().__init__(f"the stream is in the archive only; its answer is at {status_url}")
        self.members = {"status_url": status_url}


class BodyTooLarge(RequestError):
    code = "body_too_large"
    http_status = 413
    when = "the body exceeds the size limit"


class InvalidRequest(RequestError):
    code = "invalid_request"
    http_status = 422
    when = "a field or parameter is unknown, missing or invalid; the message names it"


class PreviousResponseNotFound(InvalidRequest):
    """OpenAI's code: its clients then send the whole conversation."""

    code = "previous_response_not_found"
    when = "the response of previous_response_id is not here; send the whole conversation without it"


class UnsupportedField(RequestError):
    code = "unsupported_field"
    http_status = 422
    when = "no target of the request supports a field, and unsupported_fields is refuse; the message names the field"


class LimitReached(RequestError):
    """A limit is reached. ``limit`` is one of :data:`shared.rate_limits.LIMIT_NAMES`. ``headers`` contain the limit
    and the rest of it."""

    http_status = 429
    retryable = True
    when = "the rate limit or concurrency limit of this name is reached"

    def __init__(self, limit: str, message: str, headers: dict[str, str]) -> None:
        super().__init__(message)
        self.code = self.code_of(limit)
        self.headers = headers

    @staticmethod
    def code_of(limit: str) -> str:
        return f"{limit}_exceeded"


class BudgetReached(RequestError):
    """A request would exceed a budget. ``retry_after_s``: None if a retry helps only in the next period."""

    code = "budget_reached"
    http_status = 402
    when = (
        "a budget of the credentials or of the server is used up; retryable if the rest of it is reserved by"
        " requests in progress"
    )

    def __init__(self, message: str, *, detail: str, retry_after_s: int | None) -> None:
        super().__init__(message, detail=detail)
        self.retryable = retry_after_s is not None
        self.retry_after_s = retry_after_s


class PriceUnknown(RequestError):
    code = "price_unknown"
    http_status = 422
    when = "a budget of money applies, and a model of the request has no price in its currency"


class TooManyConnections(RequestError):
    """A principal has as many live connections to this gateway as it may have."""

    code = "too_many_connections"
    http_status = 429
    retryable = True
    retry_after_s = 5
    detail = "a principal has HEADRACE_CONNECTIONS connections; raise it, or find the principal in the request log"
    when = "the caller has as many open connections as allowed"


class TooManyResponses(RequestError):
    """A WebSocket has as many responses in progress, or messages that wait, as it may have."""

    code = "too_many_responses"
    http_status = 429
    retryable = True
    retry_after_s = 2
    detail = "a WebSocket has HEADRACE_WEBSOCKET_RESPONSES responses in progress, or too many messages wait"
    when = "the WebSocket has as many responses in progress as allowed"


class ConnectionTooOld(RequestError):
    """A WebSocket is so old that it takes no new responses. OpenAI's code: its clients know it."""

    code = "websocket_connection_limit_reached"
    http_status = 400
    message = "this connection takes no new responses, because it is too old; open another one"
    when = "the WebSocket is too old for new responses"


class Unavailable(HeadraceError):
    """Temporary refusal. ``retry_after_s`` becomes the ``Retry-After`` header."""

    code = "unavailable"
    http_status = 503
    retryable = True
    retry_after_s: int = 2


class BrokerUnavailable(Unavailable):
    """Redis cannot be used. ``reason`` is one of :class:`shared.broker.trouble.Reason`. ``detail`` names the target,
    the reason and the remedy."""

    code = "broker_unavailable"
    message = "storage is temporarily unavailable; try again shortly"
    detail = "Redis does not answer, see HEADRACE_REDIS_URL"
    reason: str = "error"
    when = "storage is temporarily unavailable"

    def __init__(self, message: str | None = None, *, detail: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, detail=detail)
        if reason is not None:
            self.reason = reason


class BrokerAuth(BrokerUnavailable):
    """Redis refuses our credentials."""

    code = "broker_auth"
    message = "storage is temporarily unavailable; try again later"
    when = "storage refuses this server"


class BrokerFull(BrokerUnavailable):
    """Redis is full: reads and endings work, nothing new can be stored."""

    code = "broker_full"
    message = "storage is full at the moment; try again later"
    retry_after_s = 15
    when = "storage is full: nothing new can be stored at the moment"


class BrokerUnfit(BrokerUnavailable):
    """Redis answers but does not let us do what we need."""

    code = "broker_unfit"
    message = "storage is unavailable; try again later"
    when = "storage is misconfigured and cannot be used"


class BrokerMisconfigured(BrokerUnfit):
    """Redis would lose or misread data; waiting does not help, so a process that starts exits."""


class ArchiveUnavailable(Unavailable):
    """The database of the archive cannot be used. ``detail`` has the reason and the remedy, and no content."""

    code = "archive_unavailable"
    message = "older answers are temporarily unavailable; try again shortly"
    detail = "the database of HEADRACE_ARCHIVE_URL does not answer"
    retry_after_s = 5
    when = "older answers are temporarily unavailable"


class StreamRecovering(Unavailable):
    code = "stream_recovering"
    message = "the stream is temporarily unavailable and may be recovered; try again shortly"
    when = "the stream is temporarily unavailable after an outage and may be recovered"


class ContentUnreadable(Unavailable):
    code = "content_unreadable"
    message = "the answer cannot be read at the moment; try again shortly"
    detail = "HEADRACE_CONTENT_KEYS of this process lacks the key of a stored stream"
    when = "the answer cannot be decrypted at the moment"


class NoModels(Unavailable):
    code = "no_models"
    message = "no models are available at the moment; try again shortly"
    detail = "no worker has published its models: start a worker with at least one provider"
    when = "no models are available at the moment"


class QueueFull(Unavailable):
    code = "queue_full"
    when = "too many requests wait already"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """A body found no memory in time. It was not read."""

    code = "overloaded"
    message = "too many large requests at the moment; try again shortly"
    detail = "HEADRACE_BODY_MEMORY_BYTES is taken by other request bodies; raise it, or add gateways"
    retry_after_s = 5
    when = "too many large requests are being received"


class Draining(Unavailable):
    code = "draining"
    message = "this server is shutting down; try again"
    when = "this server is shutting down; others are available"


class HookFailed(Unavailable):
    """A hook of the operator failed, so that the request could not be checked."""

    code = "hook_failed"
    message = "the request could not be checked; try again"
    detail = "a hook raised an exception, or took longer than HEADRACE_HOOK_TIMEOUT_S; the log has its place"
    when = "a check of this service failed; nothing was made"


class GenerationError(HeadraceError):
    """Ends one stream. Each instance has its own code, because providers add codes. ``provider_code`` and ``param``:
    the provider's own error code and the field that it names.

    ``message`` and ``param`` may contain names from the answer or the request, so they are stored in the stream's
    events only. ``summary`` is the message without such names, for the state and for operators."""

    provider_code: str | None = None
    param: str | None = None

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        detail: str | None = None,
        summary: str | None = None,
    ) -> None:
        super().__init__(message, detail=detail)
        self.code = code
        self.retryable = retryable
        self.summary = message if summary is None else summary


class ProviderError(GenerationError):
    """A failure of a provider. ``retry_after_s``: the wait that the provider requested. Codes: ``provider_auth``
    ``provider_model_not_found`` ``provider_rejected`` ``provider_rate_limited`` ``provider_unavailable``
    ``provider_unreachable`` ``provider_connect_timeout`` ``provider_first_token_timeout`` ``provider_idle_timeout``
    ``provider_protocol`` ``provider_not_configured`` ``provider_circuit_open`` ``tool_call_invalid``
    ``provider_started_over`` ``unsupported_field`` ``upstream_truncated``. ``refuses_key``: the API key is not valid.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool = False,
        retry_after_s: float | None = None,
        detail: str | None = None,
        summary: str | None = None,
        provider_code: str | None = None,
        param: str | None = None,
        refuses_key: bool = False,
    ) -> None:
        super().__init__(code, message, retryable=retryable, detail=detail, summary=summary)
        self.retry_after_s = retry_after_s
        self.refuses_key = refuses_key
        self.provider_code = provider_code
        self.param = param
