"""Lists the caller's streams, and searches those in the archive."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query

from gateway.api.descriptions import STREAMS
from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.parameters import IsDate
from gateway.api.response_models import StreamList
from gateway.archive.lists import list_all, search
from gateway.state import Caller, Gateway, GatewayState
from shared.archive.records import LATEST_MS, Filters
from shared.broker.stream_index import parse_page
from shared.errors import InvalidRequest
from shared.scopes import Scope

if TYPE_CHECKING:
    from shared.archive.archive import Archive

router = APIRouter(tags=[STREAMS])

_LONGEST_TEXT: Final = 256
_NO_ARCHIVE: Final = "searches need an archive, and this server has none; its operator sets HEADRACE_ARCHIVE_URL"
_SEALED: Final = "q: this server encrypts answers, so their text cannot be searched; use chat_id, model, from and to"

Text = Annotated[str | None, Query(min_length=1, max_length=_LONGEST_TEXT)]


@router.get(
    "/chat",
    operation_id="list_streams",
    summary="List or search streams",
    response_model=StreamList,
    responses=error_responses(*CALLER, "invalid_request", "archive_unavailable"),
)
async def list_streams(
    gateway: Gateway,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Annotated[str | None, Query(max_length=64, json_schema_extra={"pattern": "^[0-9]{1,15}-"})] = None,
    q: Text = None,
    chat_id: Text = None,
    model: Text = None,
    begin: Annotated[datetime | None, IsDate, Query(alias="from")] = None,
    end: Annotated[datetime | None, IsDate, Query(alias="to")] = None,
) -> dict[str, Any]:
    """List the caller's streams, newest first; pass ``next_page`` as ``page``. With one of the other parameters,
    search the archive: ``q`` is a part of the answer's text, in any case; ``model`` a name or `provider/model`;
    ``from`` and ``to`` limit the time of creation. ``incomplete`` is true while the archive is unavailable: then
    streams that only the archive has are missing."""
    caller.need(Scope.READ)
    after = None if page is None else parse_page(page)
    if page is not None and after is None:
        raise InvalidRequest("page: invalid; use `next_page` of the previous response")
    filters = Filters(q, chat_id, model, _ms(begin), _ms(end))
    if filters != Filters():
        archive = _searchable(gateway, filters)
        listed = await search(archive, caller.id, filters, most=limit, page=after)
        return {"streams": listed.streams, "next_page": listed.next_page}
    merged = await list_all(gateway, caller.id, most=limit, page=after)
    body = {"streams": merged.listed.streams, "next_page": merged.listed.next_page}
    return body if merged.is_complete else {**body, "incomplete": True}


def _searchable(gateway: GatewayState, filters: Filters) -> "Archive":
    if gateway.archive is None:
        raise InvalidRequest(_NO_ARCHIVE)
    if filters.text is not None and gateway.archive.rows.are_sealed:
        raise InvalidRequest(_SEALED)
    return gateway.archive


def _ms(moment: datetime | None) -> int | None:
    """Return ms since 1970, as near as the archive can compare. A time without a zone is in UTC."""
    if moment is None:
        return None
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(round(at.timestamp() * 1000), 0), LATEST_MS)
