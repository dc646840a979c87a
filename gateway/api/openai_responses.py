"""Routes ``/v1/responses`` for OpenAI's SDKs: streams that can be read again from any number, also in the
background."""

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.api import examples, streams
from gateway.api.body import read_body
from gateway.api.created_responses import about_archived, about_response, create_response, find_response
from gateway.api.deferred import wait_until_ended
from gateway.api.descriptions import OPENAI, dialect_body, openai_answers
from gateway.api.live_route import LiveRoute
from gateway.api.parameters import IdempotencyKey
from gateway.api.previous_responses import PREFIX, render_events, replay_of, stream_id_of
from gateway.archive.reads import find_archived
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.dialects.openai_responses.response import ResponseInfo
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.dialects.status_codes import GenerationFailed
from gateway.live.sse import StreamResponse
from gateway.live.subscription import StreamSource, Subscription
from gateway.state import LIVE_CONNECTION, Caller, Gateway, GatewayState
from shared.broker.replies import LogPage
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
    leaves. The path is also a WebSocket, which OpenAPI cannot describe: see *Responses over WebSocket* in the
    documentation of the protocol."""
    caller.need(Scope.CHAT)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    creating = create_response(request, gateway, caller, body, idempotency_key)
    del body  # possibly large, and the wait for the first output may be long
    created = await creating
    submission, about, headers = created.submission, created.about, created.headers
    is_streamed, is_background = created.is_streamed, created.is_background
    del created
    if is_streamed:
        return _stream(gateway, Grant.of(caller), about, submission.log_page, headers=headers)
    if not is_background:
        await wait_until_ended(request, gateway, caller, submission)
    replayed = await replay_of(gateway, about)
    if not is_background and replayed.failure is not None:
        raise GenerationFailed(replayed.failure)
    if not (is_background or replayed.is_over):
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
    if stream:
        found = await find_response(gateway, grant, stream_id)
        return _stream(gateway, grant, found.about, found.log_page, after=starting_after, source=found.source)
    try:
        log_page = await read_own(gateway, grant, stream_id, START)
        return _json(await _current_response(gateway, await about_response(gateway, stream_id), log_page.status))
    except (StreamGone, StreamNotFound) as error:
        archived = await find_archived(gateway, grant, stream_id, error)
    return _json((await render_events(await about_archived(gateway, archived), archived.events)).response.body)


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
    body = await _current_response(gateway, await about_response(gateway, stream_id), cancelled["status"])
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
