"""Creates streams: ``POST /chat/stream`` (responds with the stream) and ``POST /chat`` (responds with its URLs)."""

from collections.abc import AsyncGenerator

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from gateway import metrics
from gateway.api import examples
from gateway.api.body import read_body
from gateway.api.descriptions import STREAMS
from gateway.api.error_catalog import BODY, CALLER, LIMITS, STREAM, error_responses
from gateway.api.live_route import LiveRoute
from gateway.api.openapi import answer_example, body_of, described_headers, event_stream
from gateway.api.parameters import IdempotencyKey, LastEventId
from gateway.api.response_models import Accepted
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.dialects.native import Native, frame
from gateway.intake.body_memory import run_beside_loop
from gateway.intake.field_policy import requested_policy
from gateway.intake.priority import requested_priority
from gateway.intake.submit import CursorWithoutStream, submit
from gateway.live.sse import StreamResponse
from gateway.live.subscription import Subscription
from gateway.state import Caller, Gateway
from shared.protocol import events
from shared.protocol.ids import parse_cursor
from shared.protocol.lifecycle import TERMINAL
from shared.schemas import ChatRequest, parse_chat_request
from shared.scopes import Scope

router = APIRouter(tags=[STREAMS])
live_router = APIRouter(route_class=LiveRoute, tags=[STREAMS])

_BODY = body_of(ChatRequest, examples.CHAT)
_REFUSALS = (
    *(*CALLER, *STREAM, *BODY),
    *("unknown_model", "model_not_allowed", "field_not_allowed", "unsupported_field", "idempotency_conflict"),
    *("chat_not_found", "chat_busy", "chat_gone", "archive_unavailable"),
    *(*LIMITS, "no_models", "draining"),
)


@live_router.post(
    "/chat/stream",
    operation_id="stream_chat",
    summary="Create a stream and read it",
    response_class=Response,
    responses={
        **event_stream(described_headers("X-Stream-Id", "Location", always=False)),
        **error_responses(*_REFUSALS, "invalid_last_event_id", "too_many_connections"),
    },
    openapi_extra=_BODY,
)
async def start_and_stream(
    request: Request,
    gateway: Gateway,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Create a stream and send it as server-sent events. The same ``Idempotency-Key`` and body attach to the same
    stream, from ``Last-Event-ID`` if given; a cursor without a known key never starts a generation."""
    caller.need(Scope.CHAT)
    grant = Grant.of(caller)
    cursor = parse_cursor(last_event_id)
    raw = read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request = await run_beside_loop(parse_chat_request, await raw)
    policy = requested_policy(request)
    watched = gateway.live_grants.watch(grant)
    try:
        submission = await submit(
            gateway,
            caller,
            chat_request,
            idempotency_key,
            on_disconnect="cancel",
            cursor=cursor,
            unsupported_fields=policy,
            priority=requested_priority(request),
        )
    except CursorWithoutStream:
        return StreamResponse(_resume_without_key(), gateway.settings, watched)
    stream_id, log_page = submission.stream_id, submission.log_page
    if log_page.status in TERMINAL and log_page.length and cursor == log_page.end:
        # Fetch-based clients send the same POST after every end; they stop at `done`, and loop on 204.
        log_page = await read_own(gateway, grant, stream_id, log_page.id_of(log_page.length - 1))
    subscription = Subscription(
        gateway.hub, stream_id, cursor, log_page, Native(stream_id), submission.queue_position
    )
    return StreamResponse(subscription.chunks(), gateway.settings, watched, submission.headers, subscription)


@router.post(
    "/chat",
    operation_id="create_stream",
    summary="Create a stream",
    status_code=202,
    responses={
        202: {
            "model": Accepted,
            "headers": described_headers("X-Stream-Id", "Location"),
            "content": answer_example("accepted"),
        },
        **error_responses(*_REFUSALS),
    },
    openapi_extra=_BODY,
)
async def start(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create a stream and respond 202 with its URLs; it continues with or without readers."""
    caller.need(Scope.CHAT)
    raw = read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request = await run_beside_loop(parse_chat_request, await raw)
    policy = requested_policy(request)
    submission = await submit(
        gateway,
        caller,
        chat_request,
        idempotency_key,
        on_disconnect="continue",
        unsupported_fields=policy,
        priority=requested_priority(request),
    )
    stream_id = submission.stream_id
    ticket, expires = gateway.tickets.for_request(stream_id, await gateway.link_revocations.last())
    body: Accepted = {
        "stream_id": stream_id,
        "chat_id": chat_request.chat_id,
        "history": submission.history,
        "stream_url": f"/chat/stream/{stream_id}?ticket={ticket}",
        "status_url": f"/chat/{stream_id}",
        "expires_at": expires.isoformat(timespec="seconds"),
    }
    return JSONResponse(body, 202, headers=submission.headers)


@router.api_route("/chat/stream", methods=["GET", "DELETE"], include_in_schema=False)
async def not_here() -> Response:
    """Explain the mistake to a client that opens an ``EventSource`` here: no stream has the id ``stream``."""
    raise HTTPException(
        405, "use POST to create a stream; read a stream at /chat/stream/{stream_id}", headers={"Allow": "POST"}
    )


async def _resume_without_key() -> AsyncGenerator[bytes, None]:
    metrics.RESUMES.labels("without_key").inc()
    message = "Last-Event-ID: no stream known for this Idempotency-Key; resume with GET /chat/stream/{id}"
    closing = (
        events.Error("resume_without_key", message, retryable=False),
        events.Done("error", "resume_without_key", None),
    )
    yield b"".join(frame(b"", events.encode(event)) for event in closing)
