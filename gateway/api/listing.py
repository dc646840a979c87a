"""What one has, and giving others a look at it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from gateway.api.access import read_own
from gateway.api.body import read_body
from gateway.auth.principal import Scope
from gateway.auth.rights import Right
from gateway.state import Caller, Gateway
from shared.broker.owned import list_owned, parse_page
from shared.errors import InvalidRequest
from shared.schemas.chat import parse_body
from shared.schemas.model import Model

router = APIRouter()

_MOST_BODY_BYTES = 4096
_LONGEST_S = 90 * 24 * 3600


class TicketRequest(Model):
    """``life_s``: for how long; as long as the stream can live where nothing is said."""

    life_s: Annotated[float, Field(ge=1, le=_LONGEST_S)] | None = None
    may_cancel: bool = False


_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": TicketRequest.model_json_schema()}}}
}


@router.get("/chat")
async def list_streams(
    gateway: Gateway,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """One's own streams, the newest first; ``next_page`` goes into ``page``."""
    caller.need(Scope.READ)
    after = None if page is None else parse_page(page)
    if page is not None and after is None:
        raise InvalidRequest("page: take it from `next_page`")
    listed = await list_owned(gateway.client, gateway.scripts.sealing, caller.id, most=limit, page=after)
    return {"streams": listed.streams, "next_page": listed.next_page}


@router.post("/chat/{stream_id}/tickets", status_code=201, openapi_extra=_BODY)
async def make_ticket(request: Request, stream_id: str, gateway: Gateway, caller: Caller) -> dict[str, str]:
    """A link with which anybody can read this one stream until it expires. By its owner alone."""
    asked = parse_body(TicketRequest, await read_body(request, _MOST_BODY_BYTES))
    caller.need(Scope.CANCEL if asked.may_cancel else Scope.READ)
    await read_own(gateway, Right.of(caller), stream_id, most_events=0)
    ticket, expires = gateway.tickets.issue(stream_id, life_s=asked.life_s, may_cancel=asked.may_cancel)
    return {
        "stream_url": f"/chat/stream/{stream_id}?ticket={ticket}",
        "status_url": f"/chat/{stream_id}?ticket={ticket}",
        "expires_at": expires.isoformat(timespec="seconds"),
    }
