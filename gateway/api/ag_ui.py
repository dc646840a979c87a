"""Routes ``/ag-ui`` for clients of the AG-UI protocol: runs survive the connections of their clients."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response

from gateway.api import examples, streams
from gateway.api.body import read_body
from gateway.api.descriptions import AG_UI, dialect_body, native_answers, native_errors
from gateway.api.error_catalog import error_responses
from gateway.api.response_models import CancelAnswer
from gateway.api.run_access import NO_RUN, MayCancelRun, MayReadRun, RunId, ThreadId, key_of, stream_of
from gateway.api.run_streams import RunSubscription, has_whole, open_run, resumed_run, stream_run
from gateway.archive.deletion import delete_own
from gateway.auth.grants import Grant
from gateway.auth.principal import Principal
from gateway.chats.history import title_of
from gateway.dialects.ag_ui import request as run_request
from gateway.dialects.ag_ui.capabilities import CAPABILITIES
from gateway.dialects.ag_ui.cursor import PATTERN, Cursor, parse_cursor
from gateway.dialects.ag_ui.frames import Run
from gateway.dialects.ag_ui.request import RunInput
from gateway.dialects.ag_ui.stream import AgUiEvents
from gateway.intake.body_memory import run_beside_loop
from gateway.intake.field_policy import add_ignored, requested_policy
from gateway.intake.priority import requested_priority
from gateway.intake.submit import CursorWithoutStream, Submission, submit
from gateway.state import LIVE_CONNECTION, Caller, ConnectionPlace, Gateway, GatewayState
from shared.errors import Draining, IdempotencyConflict, StreamNotFound
from shared.protocol.ids import START
from shared.schemas import ChatRequest
from shared.scopes import Scope

router = APIRouter(prefix="/ag-ui", tags=[AG_UI])

#: A client's id may have a slash, which servers decode before they look for a route.
RUN_PATH: Final = "/runs/{run_id:path}"

_EVENTS: Final = "AG-UI's events of the run. Each `id` is a cursor."
_ABOUT_CURSORS: Final = "The `id` of the last event received; all later ones are sent. Absent: from the start."
_ABOUT_QUERY: Final = "For clients that cannot send the header, which wins: an `EventSource` repeats its old URL."
LastFrame = Annotated[
    str | None, Header(alias="Last-Event-ID", description=_ABOUT_CURSORS, json_schema_extra={"pattern": PATTERN})
]
QueryFrame = Annotated[
    str | None, Query(alias="last_event_id", description=_ABOUT_QUERY, json_schema_extra={"pattern": PATTERN})
]


@router.get(
    "/capabilities",
    operation_id="get_agent_capabilities",
    summary="Read the capabilities",
    responses=native_answers("AgentCapabilities"),
)
async def capabilities(caller: Caller) -> dict[str, Any]:
    """Return the result of the client's ``getCapabilities()``. ``custom.resume`` has the URLs of a run."""
    return CAPABILITIES


@router.post(
    "",
    operation_id="run_agent",
    summary="Start a run",
    response_class=Response,
    responses=native_answers(None, _EVENTS),
    openapi_extra=dialect_body("RunAgentInput", examples.RUN),
    dependencies=[LIVE_CONNECTION],
)
async def start(request: Request, gateway: Gateway, caller: Caller, last_event_id: LastFrame = None) -> Response:
    """Answer the messages. The same ``threadId`` and ``runId`` attach to the same run, from ``Last-Event-ID`` if it
    is given; with that, no run is started. A run continues without readers."""
    caller.need(Scope.CHAT)
    cursor = parse_cursor(last_event_id)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request, run_input = await run_beside_loop(run_request.parse, body, gateway.settings.default_model)
    del body
    submission = await _submit(request, gateway, caller, chat_request, run_input, cursor)
    del chat_request
    grant, stream_id, resumable = Grant.of(caller), submission.stream_id, last_event_id is not None
    headers = submission.headers | {"Location": f"/ag-ui/runs/{stream_id}"}
    add_ignored(headers, run_input.ignored)
    if not submission.created:
        # Fetch-based clients send the same POST after every end; they stop at the ending.
        opened = await open_run(gateway, grant, stream_id)
        return await resumed_run(gateway, grant, opened, cursor, headers, resumable=resumable, repeats_end=True)
    about = Run(run_input.thread_id, run_input.run_id, run_input.messages is not None)
    renderer, position = AgUiEvents(about, resumable=resumable), submission.queue_position
    subscription = RunSubscription(gateway.hub, stream_id, submission.log_page, renderer, position)
    return stream_run(gateway, grant, subscription, headers)


@router.get(
    RUN_PATH,
    operation_id="attach_to_run",
    summary="Read or resume a run",
    response_class=Response,
    responses={
        **native_answers(None, _EVENTS),
        204: {"description": "The client has the whole run."},
        **error_responses("invalid_ticket"),
    },
)
async def attach(
    gateway: Gateway,
    named: MayReadRun,
    place: ConnectionPlace,
    last_event_id: LastFrame = None,
    query_cursor: QueryFrame = None,
) -> Response:
    """Stream the events after the cursor; without one, the messages of the request and all events. Respond 204 to
    the cursor of the run's ending, so that an EventSource stops for good."""
    if gateway.hub.draining:
        raise Draining
    by_header, by_query = parse_cursor(last_event_id), parse_cursor(query_cursor)
    cursor = by_query if last_event_id is None else by_header
    opened = await open_run(gateway, named.grant, named.stream_id)
    # Readers with links take no place of the owner, nor of other links, or they could lock the owner out.
    owner = opened.log_page.principal
    place.take(owner if named.grant.owner is not None else f"links of {named.stream_id}")
    if cursor is not None and has_whole(cursor, opened.log_page):
        return Response(status_code=204)
    headers, grant = {"X-Stream-Id": named.stream_id}, named.grant.for_stream_of(owner)
    return await resumed_run(gateway, grant, opened, cursor, headers, resumable=True)


@router.post(
    f"{RUN_PATH}/cancel",
    operation_id="cancel_run",
    summary="Cancel a run",
    status_code=202,
    responses={**native_errors(), **error_responses("invalid_ticket")},
)
async def cancel(gateway: Gateway, named: MayCancelRun) -> CancelAnswer:
    """Stop the provider's call and keep the answer so far. Repeated, or after the end, it has no effect."""
    return await streams.cancel(named.stream_id, gateway, named.grant)


@router.delete(
    RUN_PATH,
    operation_id="delete_run",
    summary="Delete a run",
    status_code=204,
    responses=native_errors(),
)
async def delete(gateway: Gateway, caller: Caller, run_id: RunId, thread_id: ThreadId = None) -> None:
    """Cancel the run if it is not over, and delete its content. Only the owner may; a ticket is not enough."""
    caller.need(Scope.CANCEL)
    await delete_own(gateway, caller, await stream_of(gateway, caller, run_id, thread_id))


async def _submit(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    chat_request: ChatRequest,
    run_input: RunInput,
    cursor: Cursor | None,
) -> Submission:
    ids = {"threadId": run_input.thread_id, "runId": run_input.run_id}
    fields = {"chat": run_input.thread_id, "title": title_of(chat_request), "run": msgspec.json.encode(ids).decode()}
    if run_input.messages is not None:
        fields["shown"] = run_input.messages
    try:
        return await submit(
            gateway,
            caller,
            chat_request,
            key_of(run_input.thread_id, run_input.run_id),
            on_disconnect="continue",
            cursor=START if cursor is None else cursor.submitted,
            extra_fields=fields,
            unsupported_fields=requested_policy(request),
            priority=requested_priority(request),
        )
    except IdempotencyConflict:
        raise IdempotencyConflict("runId: already used with another request; send a new runId") from None
    except CursorWithoutStream:
        raise StreamNotFound(NO_RUN) from None
