"""The check that a grant covers the streams of an owner."""

from gateway.auth.grants import Grant
from gateway.state import GatewayState
from shared.errors import InvalidTicket, StreamNotFound


async def check_owner(gateway: GatewayState, grant: Grant, owner: str) -> None:
    """Raise :class:`StreamNotFound` if the grant does not cover the streams of ``owner``, and :class:`InvalidTicket`
    if it is a ticket and its owner has revoked all links."""
    if grant.owner not in (None, owner):
        raise StreamNotFound
    if grant.owner is None and grant.for_stream_of(owner).is_revoked(await gateway.link_revocations.read()):
        raise InvalidTicket("the ticket was revoked")
