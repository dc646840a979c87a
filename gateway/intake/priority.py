"""Class of a request in the queue: interactive or batch (docs/adr/0034)."""

from typing import Final

from fastapi import Request

from gateway.auth.principal import Principal
from shared.errors import FieldNotAllowed, InvalidRequest
from shared.schemas import ChatRequest
from shared.schemas.chat import Priority

HEADER: Final = "X-Headrace-Priority"


def requested_priority(request: Request) -> Priority | None:
    """Return the class in the request's header. Raises :class:`InvalidRequest`."""
    match request.headers.get(HEADER):
        case None:
            return None
        case "interactive" | "batch" as priority:
            return priority
    raise InvalidRequest(f"{HEADER}: must be interactive or batch")


def priority_fields(caller: Principal, chat_request: ChatRequest, requested: Priority | None) -> dict[str, str]:
    """Return the field of the stream's state; nothing for an interactive stream, as versions without classes have
    it. The body counts before the header. Raises :class:`FieldNotAllowed` if the credentials are for batch only."""
    wanted = chat_request.priority or requested
    if caller.is_batch and wanted == "interactive":
        raise FieldNotAllowed("priority: these credentials are for batch requests; use batch, or leave it out")
    return {"priority": "batch"} if caller.is_batch or wanted == "batch" else {}
