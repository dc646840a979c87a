"""Lists the caller's streams."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.response_models import StreamList
from gateway.state import Caller, Gateway
from shared.broker.stream_index import list_principal_streams, parse_page
from shared.errors import InvalidRequest
from shared.scopes import Scope

router = APIRouter()


@router.get("/chat", response_model=StreamList, responses=error_responses(*CALLER, "invalid_request"))
async def list_streams(
    gateway: Gateway,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Annotated[str | None, Query(max_length=64, json_schema_extra={"pattern": "^[0-9]{1,15}-"})] = None,
) -> dict[str, Any]:
    """List the caller's streams, newest first; pass ``next_page`` as ``page``."""
    caller.need(Scope.READ)
    after = None if page is None else parse_page(page)
    if page is not None and after is None:
        raise InvalidRequest("page: invalid; use `next_page` of the previous response")
    listed = await list_principal_streams(gateway.client, gateway.scripts.sealing, caller.id, most=limit, page=after)
    return {"streams": listed.streams, "next_page": listed.next_page}
