"""What one has, and giving others a look at it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from gateway.api import examples
from gateway.api.access import read_own
from gateway.api.body import read_body
from gateway.api.error_catalog import BODY, CALLER, STREAM, refusals
from gateway.api.openapi import body_of
from gateway.api.parameters import StreamId
from gateway.api.response_models import StreamList, TicketAnswer
from gateway.auth.grants import Grant
from gateway.auth.principal import Scope
from gateway.state import Caller, Gateway
from shared.broker.api_keys import REVOCATION_KEPT_S
from shared.broker.stream_index import list_principal_streams, parse_page
from shared.errors import InvalidRequest
from shared.schemas.chat import parse_body
from shared.schemas.model import Model

router = APIRouter()

_MOST_BODY_BYTES = 4096


class TicketRequest(Model):
    """``life_s``: for how long; as long as the stream can live where nothing is said. ``may_cancel``: it may be
    used to cancel the stream too."""

    life_s: Annotated[float, Field(ge=1, le=REVOCATION_KEPT_S)] | None = None
    may_cancel: bool = False


@router.get("/chat", response_model=StreamList, responses=refusals(*CALLER, "invalid_request"))
async def list_streams(
    gateway: Gateway,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Annotated[str | None, Query(max_length=64, json_schema_extra={"pattern": "^[0-9]{1,15}-"})] = None,
) -> dict[str, Any]:
    """One's own streams, the newest first; ``next_page`` goes into ``page``."""
    caller.need(Scope.READ)
    after = None if page is None else parse_page(page)
    if page is not None and after is None:
        raise InvalidRequest("page: take it from `next_page`")
    listed = await list_principal_streams(gateway.client, gateway.scripts.sealing, caller.id, most=limit, page=after)
    return {"streams": listed.streams, "next_page": listed.next_page}


@router.post(
    "/chat/{stream_id}/tickets",
    status_code=201,
    responses=refusals(*CALLER, *STREAM, *BODY),
    openapi_extra=body_of(TicketRequest, examples.TICKET),
)
async def make_ticket(request: Request, stream_id: StreamId, gateway: Gateway, caller: Caller) -> TicketAnswer:
    """A link with which anybody can read this one stream until it expires, or the API key that made it is revoked. By
    its owner alone."""
    asked = parse_body(TicketRequest, await read_body(request, _MOST_BODY_BYTES))
    caller.need(Scope.CANCEL if asked.may_cancel else Scope.READ)
    await read_own(gateway, Grant.of(caller), stream_id, most_events=0)
    ticket, expires = gateway.tickets.issue(
        stream_id, life_s=asked.life_s, may_cancel=asked.may_cancel, key_id=caller.key_id
    )
    return {
        "stream_url": f"/chat/stream/{stream_id}?ticket={ticket}",
        "status_url": f"/chat/{stream_id}?ticket={ticket}",
        "expires_at": expires.isoformat(timespec="seconds"),
    }
