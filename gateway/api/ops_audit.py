"""The audit log for operators, and their acts over HTTP."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request

from gateway.api.descriptions import OPERATORS, native_answers
from gateway.api.parameters import IsDate
from gateway.auth.operator import Operator
from gateway.auth.principal import Principal
from gateway.edge.request_log import current_request_log
from gateway.state import Gateway
from shared.broker.audit_log import Act, is_entry_id, read_acts
from shared.errors import InvalidRequest

_ADDRESSES: Final = re.compile(r"[0-9A-Fa-f:.,\[\] ]{1,200}")

router = APIRouter(prefix="/ops", tags=[OPERATORS])


@router.get("/audit", operation_id="list_acts", summary="Audit log", responses=native_answers("OperatorData"))
async def audit(
    gateway: Gateway,
    _: Operator,
    since: Annotated[datetime | None, IsDate, Query(description="Time of the oldest act.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[str | None, Query(description="`next` of the previous response.")] = None,
) -> dict[str, Any]:
    """Return administrative acts, the newest first. ``next`` is null at the end."""
    if before is not None and not is_entry_id(before):
        raise InvalidRequest("before: invalid; use `next` of the previous response")
    acts = await read_acts(gateway.client, most=limit, since_ms=_ms(since), before=before or "")
    return {"acts": msgspec.to_builtins(acts), "next": acts[-1].id if len(acts) == limit else None}


def act_of(operator: Principal, request: Request, what: str, target: str) -> Act:
    """Return an act of this request."""
    key = f" with key {operator.key_id}" if operator.key_id else ""
    peer = request.client.host if request.client else "unknown address"
    log = current_request_log()
    details = {"request_id": log.request_id} if log is not None else {}
    # A claim of the proxy, or of anybody if there is none.
    forwarded = request.headers.get("x-forwarded-for", "")
    if _ADDRESSES.fullmatch(forwarded):
        details["forwarded_for"] = forwarded
    return Act(what, f"{operator.id}{key}", peer, target, details)


def _ms(moment: datetime | None) -> int:
    """Return ms since 1970. A time without a zone is in UTC."""
    if moment is None:
        return 0
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(round(at.timestamp() * 1000), 0)
