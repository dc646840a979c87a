"""What every way of asking has in common, whichever dialect it came in."""

from collections.abc import Mapping

from gateway.api.access import read_own
from gateway.api.parameters import MOST_KEY_CHARACTERS
from gateway.auth.grants import Grant
from gateway.auth.principal import Principal
from gateway.intake.dispatch import Dispatched, hash_of
from gateway.state import GatewayState
from shared.broker.replies import LogPage
from shared.errors import Draining, InvalidRequest
from shared.protocol.ids import EventId
from shared.protocol.lifecycle import Status
from shared.schemas import ChatRequest, OnDisconnect


async def ask(
    gateway: GatewayState,
    caller: Principal,
    asked: ChatRequest,
    key: str | None,
    *,
    on_disconnect: OnDisconnect,
    extra_fields: Mapping[str, str] | None = None,
) -> Dispatched:
    """Make a stream, or find the one that ``key`` stands for. ``more``: what a dialect keeps with it, as fields of
    its state. Raises what :meth:`Dispatch.dispatch` does, :class:`Draining` and :class:`UnknownModel`."""
    if gateway.hub.draining:
        raise Draining
    body_hash = hash_of(asked, gateway.settings.secret)
    # First, so that what is on offer now does not decide over an answer that was asked for before.
    if key is not None and (known := await gateway.dispatch.find(caller.id, key, body_hash)):
        return known
    resolved = await gateway.models.resolve(asked)
    return await gateway.dispatch.dispatch(
        resolved,
        body_hash=body_hash,
        principal=caller,
        idempotency_key=key,
        on_disconnect=on_disconnect,
        extra_fields=extra_fields or {},
    )


def check_key(key: str | None) -> None:
    """Raises :class:`InvalidRequest`."""
    if key is not None and not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise InvalidRequest(f"Idempotency-Key: must have 1 to {MOST_KEY_CHARACTERS} characters")


async def page_of(gateway: GatewayState, grant: Grant, dispatched: Dispatched, cursor: EventId) -> LogPage:
    """What the log says; a stream that was just made has nothing to ask for."""
    if dispatched.created:
        return LogPage(Status.QUEUED, grant.owner or "", 0, 0, 1, [])
    page = await read_own(gateway, grant, dispatched.stream_id, cursor)
    if page.status is Status.QUEUED:  # its job may be lost
        await gateway.dispatch.enqueue(dispatched.stream_id)
    return page


def headers_of(dispatched: Dispatched) -> dict[str, str]:
    stream_id = dispatched.stream_id
    limits = dispatched.admission.headers if dispatched.admission else {}
    return {"X-Stream-Id": stream_id, "Location": f"/chat/stream/{stream_id}", **limits}
