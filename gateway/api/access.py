"""Who may touch a stream, and what it is to them: 404, 410 or the stream."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.api.parameters import StreamId, Ticket
from gateway.auth.grants import Grant
from gateway.auth.principal import Scope
from gateway.state import Gateway, GatewayState
from shared.broker.client import run_script
from shared.broker.replies import Gone, LogPage, Lost
from shared.broker.scripts import MOST_EVENTS
from shared.errors import InvalidTicket, StreamGone, StreamNotFound, StreamRecovering
from shared.protocol.ids import START, EventId, is_stream_id


async def may_read(request: Request, gateway: Gateway, stream_id: StreamId, ticket: Ticket = None) -> Grant:
    """By a ticket for this stream, else by credentials."""
    return await _right(request, gateway, stream_id, ticket, Scope.READ)


async def may_cancel(request: Request, gateway: Gateway, stream_id: StreamId, ticket: Ticket = None) -> Grant:
    return await _right(request, gateway, stream_id, ticket, Scope.CANCEL)


MayRead = Annotated[Grant, Depends(may_read)]
MayCancel = Annotated[Grant, Depends(may_cancel)]


async def read_own(
    gateway: GatewayState, right: Grant, stream_id: str, after: EventId = START, *, most_events: int = MOST_EVENTS
) -> LogPage:
    """A page of a stream that the caller has a right to. Raises :class:`StreamNotFound` also for somebody else's, so
    that an id cannot be probed, :class:`StreamGone` for what was the caller's own, and
    :class:`StreamRecovering` where Redis may just have lost it."""
    if not is_stream_id(stream_id):
        raise StreamNotFound
    page = await run_script(gateway.client, gateway.scripts.read(stream_id, after, most_events=most_events))
    if page is Lost.MAYBE:
        raise StreamRecovering
    if page is None or right.owner not in (None, page.principal):
        raise StreamNotFound
    if isinstance(page, Gone):
        raise StreamGone
    return page


async def _right(request: Request, gateway: GatewayState, stream_id: str, ticket: str | None, scope: Scope) -> Grant:
    if ticket is not None:
        expires_at, key_id = gateway.tickets.check(ticket, stream_id, to_cancel=scope is Scope.CANCEL)
        api_keys = gateway.authenticator.api_keys
        if api_keys is not None and key_id is not None and await api_keys.was_revoked(key_id):
            raise InvalidTicket("the key that made the ticket was revoked")
        return Grant(None, expires_at, key_id)
    principal = await gateway.authenticator.principal(request)
    principal.need(scope)
    return Grant.of(principal)
