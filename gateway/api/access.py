"""Dependencies of routes that authorise access to a stream, by a ticket or by credentials."""

from typing import Annotated

from fastapi import Depends, Request

from gateway.api.parameters import StreamId, Ticket
from gateway.auth.grants import Grant
from gateway.state import Gateway, GatewayState
from shared.errors import InvalidTicket
from shared.scopes import Scope


async def may_read(request: Request, gateway: Gateway, stream_id: StreamId, ticket: Ticket = None) -> Grant:
    """Authorise reading, by a ticket for this stream or else by credentials."""
    return await authorise(request, gateway, stream_id, ticket, Scope.READ)


async def may_cancel(request: Request, gateway: Gateway, stream_id: StreamId, ticket: Ticket = None) -> Grant:
    return await authorise(request, gateway, stream_id, ticket, Scope.CANCEL)


MayRead = Annotated[Grant, Depends(may_read)]
MayCancel = Annotated[Grant, Depends(may_cancel)]


async def authorise(
    request: Request, gateway: GatewayState, stream_id: str, ticket: str | None, scope: Scope
) -> Grant:
    """Authorise access with a scope to one stream, by a ticket for it or else by credentials. Raises
    :class:`InvalidTicket`, :class:`Unauthenticated` and :class:`Forbidden`."""
    if ticket is not None:
        grant = gateway.tickets.check(ticket, stream_id, to_cancel=scope is Scope.CANCEL)
        if grant.key_id is not None and await gateway.authenticator.api_keys.was_revoked(grant.key_id):
            raise InvalidTicket("the API key that made the ticket was revoked")
        return grant
    principal = await gateway.authenticator.principal(request)
    principal.need(scope)
    return Grant.of(principal)
