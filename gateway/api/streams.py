"""Routes of one stream: read, resume, cancel, delete."""

import asyncio
from contextlib import suppress
from typing import cast

from fastapi import APIRouter, Response

from gateway import metrics
from gateway.api.access import MayCancel, MayRead
from gateway.api.descriptions import STREAMS
from gateway.api.error_catalog import CALLER, STREAM, error_responses
from gateway.api.openapi import answer_example, described_headers, event_stream
from gateway.api.parameters import LastEventId, QueryCursor, StreamId
from gateway.api.response_models import CancelAnswer, StreamStatus
from gateway.archive.archived_log import ArchivedLog
from gateway.archive.deletion import delete_own
from gateway.archive.reads import archived_view, find_archived, open_archived_log
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.dialects.native import Native
from gateway.edge.request_log import current_request_log
from gateway.live.sse import StreamResponse
from gateway.live.subscription import StreamSource, Subscription
from gateway.state import Caller, ConnectionPlace, Gateway, GatewayState
from shared.broker.answer import answer_view
from shared.broker.client import run_script
from shared.broker.ending import Outcome, end_unheld
from shared.broker.log import read_stored_log
from shared.broker.queue import queue_positions
from shared.broker.replies import Refused
from shared.broker.status import read_state
from shared.errors import BrokerUnavailable, Draining, StreamGone, StreamNotFound
from shared.protocol import events
from shared.protocol.ids import START, parse_cursor
from shared.protocol.lifecycle import ACTIVE, TERMINAL, Status
from shared.protocol.transcript import fold
from shared.scopes import Scope

router = APIRouter(tags=[STREAMS])

_BY_TICKET = (*CALLER, *STREAM, "invalid_ticket")


@router.get(
    "/chat/stream/{stream_id}",
    operation_id="read_stream",
    summary="Read or resume a stream",
    response_class=Response,
    responses={
        **event_stream(described_headers("X-Stream-Id")),
        204: {"description": "The cursor is at the end of a stream that has ended."},
        **error_responses(*_BY_TICKET, "invalid_last_event_id", "too_many_connections", "draining"),
    },
)
async def resume(
    stream_id: StreamId,
    gateway: Gateway,
    grant: MayRead,
    place: ConnectionPlace,
    last_event_id: LastEventId = None,
    query_cursor: QueryCursor = None,
) -> Response:
    """Stream the events after the cursor. The header wins over the query: an EventSource repeats its old URL. Respond
    204 at the end, so that an EventSource stops for good."""
    if gateway.hub.draining:
        raise Draining
    by_header, by_query = parse_cursor(last_event_id), parse_cursor(query_cursor)  # neither may be malformed
    cursor = by_query if last_event_id is None else by_header
    source: StreamSource = gateway.hub
    try:
        log_page = await read_own(gateway, grant, stream_id, cursor)
    except (StreamGone, StreamNotFound) as error:
        archived = await _archived_log(gateway, grant, stream_id, error)
        source, log_page = archived, archived.page(cursor)
    # Readers with links take no place of the owner, nor of other links, or they could lock the owner out.
    place.take(log_page.principal if grant.owner is not None else f"links of {stream_id}")
    if cursor != START:
        how = "same_epoch" if log_page.follows(cursor) else "reset"
        metrics.RESUMES.labels(how).inc()
        if source is gateway.hub:
            await _report_resume(gateway, stream_id, how)
    if log_page.status in TERMINAL and cursor == log_page.end:
        return Response(status_code=204)
    subscription = Subscription(source, stream_id, cursor, log_page, Native(stream_id))
    headers = {"X-Stream-Id": stream_id}
    watched = gateway.live_grants.watch(grant.for_stream_of(log_page.principal))
    return StreamResponse(subscription.chunks(), gateway.settings, watched, headers, subscription)


async def _archived_log(
    gateway: GatewayState, grant: Grant, stream_id: str, missing: StreamGone | StreamNotFound
) -> ArchivedLog:
    try:
        return await open_archived_log(gateway, grant, stream_id, missing, status_url=f"/chat/{stream_id}")
    except StreamGone:
        metrics.RESUMES.labels("expired").inc()
        raise


async def _report_resume(gateway: GatewayState, stream_id: str, how: str) -> None:
    """Report the resume to Redis: at once if the request is traced, since its span joins the stream's trace; else
    later."""
    request_log = current_request_log()
    if request_log is None or not request_log.can_be_traced:
        gateway.hub.leases.record_resume(stream_id, how)
        return
    with suppress(BrokerUnavailable):  # a full Redis can be read all the same
        request_log.resumed(await run_script(gateway.client, gateway.scripts.note_resume(stream_id, how)), how)


@router.get(
    "/chat/{stream_id}",
    operation_id="get_stream",
    summary="Read the answer so far",
    responses={
        200: {"content": answer_example("completed")},
        **error_responses(*_BY_TICKET),
    },
)
async def status(stream_id: StreamId, gateway: Gateway, grant: MayRead) -> StreamStatus:
    """Return the answer so far as JSON. A read counts as watching for a while, so a client may poll, but not after a
    client has streamed the answer: a page that polls must not keep alive what its reader has left."""
    try:
        return await _live_status(gateway, grant, stream_id)
    except (StreamGone, StreamNotFound) as error:
        archived = await find_archived(gateway, grant, stream_id, error)
    return archived_view(archived)


async def _live_status(gateway: GatewayState, grant: Grant, stream_id: str) -> StreamStatus:
    log_page = await read_own(gateway, grant, stream_id)
    state = await read_state(gateway.client, gateway.scripts.sealing, stream_id)
    if state is None:
        raise StreamGone
    # The state must not be newer than the events: the stream may have ended between the two reads.
    is_consistent = log_page.complete and log_page.status == state.status
    stored, end = log_page.events, log_page.end
    if not is_consistent:
        log = await read_stored_log(gateway.client, gateway.scripts, stream_id)
        stored, end = log.events, log.cursor
    if log_page.length and not stored:
        raise StreamGone  # deleted or dropped between the two reads
    if log_page.status in ACTIVE:
        await run_script(gateway.client, gateway.scripts.acknowledge(stream_id, "", end))
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, stored)))  # megabytes, at worst
    position = await _queue_position(gateway, stream_id) if state.status == Status.QUEUED else None
    view = answer_view(stream_id, state, transcript)
    return cast(StreamStatus, {**view, "position": position, "last_event_id": str(end) if stored else None})


@router.post(
    "/chat/{stream_id}/cancel",
    operation_id="cancel_stream",
    summary="Cancel a stream",
    status_code=202,
    responses=error_responses(*_BY_TICKET),
)
async def cancel(stream_id: StreamId, gateway: Gateway, grant: MayCancel) -> CancelAnswer:
    """Stop the provider's call, from any gateway. Repeated, or after the end, it has no effect."""
    await read_own(gateway, grant, stream_id, most_events=0)
    return await stop(gateway, stream_id)


@router.delete(
    "/chat/{stream_id}",
    operation_id="delete_stream",
    summary="Delete a stream",
    status_code=204,
    responses=error_responses(*CALLER, *STREAM),
)
async def delete(stream_id: StreamId, gateway: Gateway, caller: Caller) -> None:
    """Cancel a running stream and delete its content. Only the owner may; a ticket is not enough."""
    caller.need(Scope.CANCEL)
    await delete_own(gateway, caller, stream_id)


async def stop(gateway: GatewayState, stream_id: str) -> CancelAnswer:
    """Cancel a stream; the caller must be authorised already."""
    metrics.CANCELS.inc()
    reply = await run_script(gateway.client, gateway.scripts.cancel(stream_id, "cancelled"))
    if reply is Refused.UNHELD:
        await end_unheld(gateway.client, gateway.scripts, stream_id, Outcome.cancelled("cancelled"))
    state = await read_state(gateway.client, gateway.scripts.sealing, stream_id)
    if state is None:
        raise StreamGone
    return {"stream_id": stream_id, "status": state.status}


async def _queue_position(gateway: GatewayState, stream_id: str) -> int | None:
    (queue_position,) = await queue_positions(gateway.client, [stream_id], gateway.scripts.target_limits)
    return queue_position
