"""Routes ``/v1/responses`` for OpenAI's SDKs: streams that can be read again from any number, also in the
background."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.api import examples, streams
from gateway.api.body import read_body
from gateway.api.deferred import submit_once, wait_until_ended
from gateway.api.descriptions import OPENAI, dialect_body, openai_answers
from gateway.api.live_route import LiveRoute
from gateway.api.parameters import IdempotencyKey
from gateway.api.previous_responses import PREFIX, compose_request, render_events, replay_of, stream_id_of
from gateway.archive.archived_log import ArchivedLog
from gateway.archive.reads import find_archived, read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.dialects.openai_responses import echo
from gateway.dialects.openai_responses.response import ResponseInfo, Stored, decode_stored, encode_stored
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.dialects.status_codes import GenerationFailed
from gateway.live.sse import StreamResponse
from gateway.live.subscription import StreamSource, Subscription
from gateway.state import LIVE_CONNECTION, Caller, Gateway, GatewayState
from shared.archive.records import ArchivedStream
from shared.broker.replies import LogPage
from shared.broker.status import read_field, read_state
from shared.errors import Draining, StreamGone, StreamNotFound
from shared.protocol.ids import START
from shared.protocol.lifecycle import TERMINAL, Status
from shared.scopes import Scope

router = APIRouter(prefix="/v1/responses", tags=[OPENAI])
live_router = APIRouter(prefix="/v1/responses", tags=[OPENAI], route_class=LiveRoute)

_EVENTS: Final = "With `stream: true`: events of OpenAI's Responses, numbered by `sequence_number`."

StreamId = Annotated[str, Depends(stream_id_of)]


@live_router.post(
    "",
    operation_id="create_response",
    summary="Create a response",
    response_class=Response,
    responses=openai_answers("ResponseObject", _EVENTS),
    openapi_extra=dialect_body("ResponseRequest", examples.RESPONSE),
)
async def create(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Create a response. In the background it continues without readers; otherwise it is cancelled when its reader
    leaves."""
    caller.need(Scope.CHAT)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    composed, body_bytes = await compose_request(gateway, caller, body), len(body)
    del body
    chat_request, options = composed.chat_request, composed.options
    on_disconnect = "continue" if options.background else "cancel"
    chat_request = chat_request.model_copy(update={"on_disconnect": chat_request.on_disconnect or on_disconnect})
    large: echo.Large = options.large
    stored = Stored(options.background, composed.previous, options.encrypts_reasoning, options.echoed, options.forms)
    continues = bool(composed.earlier.stream_ids)
    if not echo.is_read_from_request(body_bytes, is_kept=options.store, continues=continues):
        large = echo.storable(options.large)
        stored = msgspec.structs.replace(stored, large=large)
    extra_fields = {"response": encode_stored(stored)}
    if composed.earlier.stream_ids:
        extra_fields["sources"] = " ".join(composed.earlier.stream_ids)
    if options.store:
        extra_fields["follow_up"] = str(options.instructions)
    submission = await submit_once(request, gateway, caller, chat_request, idempotency_key, extra_fields)
    del composed, chat_request  # possibly large, and the wait for the first output may be long
    headers = submission.headers | {"X-Request-Id": submission.stream_id}
    about = await _about(gateway, submission.stream_id, large=large)
    if options.stream:
        return _stream(gateway, Grant.of(caller), about, submission.log_page, headers=headers)
    if not options.background:
        await wait_until_ended(request, gateway, caller, submission)
    replayed = await replay_of(gateway, about)
    if not options.background and replayed.failure is not None:
        raise GenerationFailed(replayed.failure)
    if not (options.background or replayed.is_over):
        raise StreamGone  # deleted or lost meanwhile
    return _json(replayed.response.body, headers)


@router.get(
    "/{response_id}",
    operation_id="get_response",
    summary="Read a response",
    response_class=Response,
    responses=openai_answers("ResponseObject", _EVENTS),
    dependencies=[LIVE_CONNECTION],
)
async def retrieve(
    gateway: Gateway,
    caller: Caller,
    stream_id: StreamId,
    *,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
) -> Response:
    """Return the response so far, or a stream of the events after ``starting_after``."""
    caller.need(Scope.READ)
    if stream and gateway.hub.draining:
        raise Draining
    grant = Grant.of(caller)
    after = starting_after if stream else None
    try:
        return await _retrieve_live(gateway, grant, stream_id, after)
    except (StreamGone, StreamNotFound) as error:
        return await _retrieve_archived(gateway, grant, await find_archived(gateway, grant, stream_id, error), after)


@router.post(
    "/{response_id}/cancel",
    operation_id="cancel_response",
    summary="Cancel a response",
    response_class=Response,
    responses=openai_answers("ResponseObject"),
)
async def cancel(gateway: Gateway, caller: Caller, stream_id: StreamId) -> Response:
    """Cancel the response and return it. Repeated, or after the end, it has no effect. A caller without the scope
    ``read`` gets the id and the status only."""
    caller.need(Scope.CANCEL)
    cancelled = await streams.cancel(stream_id, gateway, Grant.of(caller))
    body = await _current_response(gateway, await _about(gateway, stream_id), cancelled["status"])
    if Scope.READ not in caller.scopes:
        body = {name: body[name] for name in ("id", "object", "status")}
    return _json(body)


@router.delete(
    "/{response_id}",
    operation_id="delete_response",
    summary="Delete a response",
    responses=openai_answers("ResponseDeleted"),
)
async def delete(gateway: Gateway, caller: Caller, stream_id: StreamId) -> dict[str, Any]:
    """Cancel the response if it is running, and delete its content."""
    await streams.delete(stream_id, gateway, caller)
    return {"id": f"{PREFIX}{stream_id}", "object": "response", "deleted": True}


async def _retrieve_live(gateway: GatewayState, grant: Grant, stream_id: str, after: int | None) -> Response:
    log_page = await read_own(gateway, grant, stream_id, START)
    about = await _about(gateway, stream_id)
    if after is not None:
        return _stream(gateway, grant, about, log_page, after=after)
    return _json(await _current_response(gateway, about, log_page.status))


async def _retrieve_archived(
    gateway: GatewayState, grant: Grant, archived: ArchivedStream, after: int | None
) -> Response:
    """Return an archived response, or a stream of its events ``after`` a number."""
    stored, large, stream_id = decode_stored(archived.fields.get("response")), None, archived.stream_id
    if stored.large is None and stored.echoed.get("store"):
        state = await read_stored_fields(gateway, stream_id, ("status", "request"))
        large = echo.large_in(state["request"])
    model, metadata = f"{archived.provider}/{archived.model}", archived.view["metadata"]
    about = ResponseInfo(stream_id, model, archived.created // 1000, stored, metadata, stored.large or large)
    if after is None:
        return _json((await render_events(about, archived.events)).response.body)
    log = ArchivedLog.of(archived, gateway.hub, status_url=f"/v1/responses/{PREFIX}{stream_id}")
    return _stream(gateway, grant, about, log.page(START), after=after, source=log)


def _json(body: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json", headers=headers)


def _stream(
    gateway: GatewayState,
    grant: Grant,
    about: ResponseInfo,
    log_page: LogPage,
    *,
    after: int = -1,
    headers: dict[str, str] | None = None,
    source: StreamSource | None = None,
) -> Response:
    renderer = ResponseEvents(about, after=after)
    subscription = Subscription(source or gateway.hub, about.stream_id, START, log_page, renderer)
    watched = gateway.live_grants.watch(grant)
    return StreamResponse(subscription.chunks(), gateway.settings, watched, headers, subscription)


async def _current_response(gateway: GatewayState, about: ResponseInfo, status: str) -> dict[str, Any]:
    replayed = await replay_of(gateway, about)
    if status in TERMINAL and not replayed.is_over:
        raise StreamGone  # deleted or dropped meanwhile
    response = replayed.response
    if status == Status.RUNNING and response.status == "queued":  # its provider has sent nothing yet
        response.status = "in_progress"
    return response.body


async def _about(gateway: GatewayState, stream_id: str, *, large: echo.Large = None) -> ResponseInfo:
    """Return the attributes of a response. ``large``: those of its request, if they are at hand."""
    state = await read_state(gateway.client, gateway.scripts.sealing, stream_id)
    if state is None or state.created_at is None:
        raise StreamGone
    created_at = int(datetime.fromisoformat(state.created_at).timestamp())
    stored = decode_stored(await read_field(gateway.client, gateway.scripts.sealing, stream_id, "response"))
    large = large if large is not None else stored.large
    if large is None and stored.echoed.get("store"):
        large = echo.large_in(await read_field(gateway.client, gateway.scripts.sealing, stream_id, "request"))
    model = f"{state.provider}/{state.model}"
    return ResponseInfo(stream_id, model, created_at, stored, state.metadata, large)
