"""Authorises access to a stream; raises 404 or 410."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.api.parameters import StreamId, Ticket
from gateway.auth.grants import Grant
from gateway.state import Gateway, GatewayState
from shared.broker.client import run_script
from shared.broker.replies import Gone, LogPage, Lost
from shared.broker.scripts import MOST_EVENTS
from shared.errors import InvalidTicket, StreamGone, StreamNotFound, StreamRecovering
from shared.protocol.ids import START, EventId, is_stream_id
from shared.scopes import Scope


async def may_read(request: Request, gateway: Gateway, stream_id: StreamId, ticket: Ticket = None) -> Grant:
    """Authorise reading, by a ticket for this stream or else by credentials."""
    return await _grant(request, gateway, stream_id, ticket, Scope.READ)


async def may_cancel(request: Request, gateway: Gateway, stream_id: StreamId, ticket: Ticket = None) -> Grant:
    return await _grant(request, gateway, stream_id, ticket, Scope.CANCEL)


MayRead = Annotated[Grant, Depends(may_read)]
MayCancel = Annotated[Grant, Depends(may_cancel)]


async def read_own(
    gateway: GatewayState, grant: Grant, stream_id: str, after: EventId = START, *, most_events: int = MOST_EVENTS
) -> LogPage:
    """Read a page of the log of a stream that the grant covers. Raises :class:`StreamNotFound` also for streams of
    others, so that ids cannot be probed, :class:`StreamGone` for the caller's own past stream, and
    :class:`StreamRecovering` if Redis may have lost it a moment ago."""
    if not is_stream_id(stream_id):
        raise StreamNotFound
    log_page = await run_script(gateway.client, gateway.scripts.read(stream_id, after, most_events=most_events))
    if log_page is Lost.MAYBE:
        raise StreamRecovering
    if log_page is None or grant.owner not in (None, log_page.principal):
        raise StreamNotFound
    if isinstance(log_page, Gone):
        raise StreamGone
    return log_page


async def _grant(request: Request, gateway: GatewayState, stream_id: str, ticket: str | None, scope: Scope) -> Grant:
    if ticket is not None:
        expires_at, key_id = gateway.tickets.check(ticket, stream_id, to_cancel=scope is Scope.CANCEL)
        api_keys = gateway.authenticator.api_keys
        if api_keys is not None and key_id is not None and await api_keys.was_revoked(key_id):
            raise InvalidTicket("the API key that made the ticket was revoked")
        return Grant(None, expires_at, key_id)
    principal = await gateway.authenticator.principal(request)
    principal.need(scope)
    return Grant.of(principal)
