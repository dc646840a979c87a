"""Route ``/connection``, which describes a request as it has arrived. ``headrace doctor`` calls it."""

import time
from typing import Final, Literal

from fastapi import APIRouter, Request

from gateway.api.descriptions import SERVER
from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.response_models import Connection
from gateway.state import Caller, Gateway
from shared.broker.status import time_of
from shared.version import VERSION

router = APIRouter(tags=[SERVER])

#: Fields that proxies remove or add by mistake. No values, and no names of other fields, which may be internal.
_SHOWN: Final = ("authorization", "last-event-id", "idempotency-key", "via")


@router.get(
    "/connection",
    operation_id="get_connection",
    summary="Describe this request as it arrived",
    responses=error_responses(*CALLER),
)
async def connection(request: Request, gateway: Gateway, _: Caller) -> Connection:
    """Describe this request as it has arrived, to find a proxy's fault. `headrace doctor` calls it."""
    settings = gateway.settings
    return {
        "version": VERSION,
        "at": time_of(str(time.time_ns() // 1_000_000)) or "",
        "http_version": request.scope["http_version"],
        "scheme": request.url.scheme,
        "headers": [name for name in _SHOWN if name in request.headers],
        "forwarded": _forwarded(request),
        "heartbeat_s": settings.heartbeat_s,
        "max_body_bytes": settings.max_body_bytes,
    }


def _forwarded(request: Request) -> Literal["used", "ignored", "absent"]:
    addresses = request.headers.get("x-forwarded-for")
    if addresses is None or request.client is None:
        return "absent"
    host, port = request.client
    # The server gives a client from the header port 0 if the header has no port.
    return "used" if port == 0 or f"{host}:{port}" in addresses else "ignored"
