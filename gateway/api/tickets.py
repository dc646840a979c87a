"""Tickets: links that let others read one stream."""

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from gateway.api import examples
from gateway.api.body import read_body
from gateway.api.descriptions import STREAMS
from gateway.api.error_catalog import BODY, CALLER, STREAM, error_responses
from gateway.api.openapi import body_of
from gateway.api.parameters import StreamId
from gateway.api.response_models import TicketAnswer
from gateway.archive.reads import find_archived
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.state import Caller, Gateway
from shared.broker.api_keys import REVOCATION_KEPT_S
from shared.errors import StreamGone, StreamNotFound
from shared.schemas.chat import parse_body
from shared.schemas.model import Model
from shared.scopes import Scope

router = APIRouter(tags=[STREAMS])

_MOST_BODY_BYTES = 4096


class TicketRequest(Model):
    """Options of a ticket. ``life_s``: validity; by default as long as the stream can live. It ends earlier if the
    credentials that made it do. ``may_cancel``: the ticket also allows to cancel the stream."""

    life_s: Annotated[float, Field(ge=1, le=REVOCATION_KEPT_S)] | None = None
    may_cancel: bool = False


@router.post(
    "/chat/{stream_id}/tickets",
    operation_id="create_link",
    summary="Create a link to a stream",
    status_code=201,
    responses=error_responses(*CALLER, *STREAM, *BODY),
    openapi_extra=body_of(TicketRequest, examples.TICKET),
)
async def make_ticket(request: Request, stream_id: StreamId, gateway: Gateway, caller: Caller) -> TicketAnswer:
    """Create a link that allows anyone to read this one stream, until it expires, or the API key or token that made
    it ends. Only the stream's owner may, with the scope `read`, and `cancel` for a link that cancels."""
    caller.need(Scope.READ)
    ticket_request = parse_body(TicketRequest, await read_body(request, caller, _MOST_BODY_BYTES))
    if ticket_request.may_cancel:
        caller.need(Scope.CANCEL)
    try:
        await read_own(gateway, Grant.of(caller), stream_id, most_events=0)
    except (StreamGone, StreamNotFound) as error:
        await find_archived(gateway, Grant.of(caller), stream_id, error)
    ticket, expires = gateway.tickets.for_others(
        stream_id,
        caller,
        await gateway.link_revocations.last_now(),
        life_s=ticket_request.life_s,
        may_cancel=ticket_request.may_cancel,
    )
    return {
        "stream_url": f"/chat/stream/{stream_id}?ticket={ticket}",
        "status_url": f"/chat/{stream_id}?ticket={ticket}",
        "expires_at": expires.isoformat(timespec="seconds"),
    }
