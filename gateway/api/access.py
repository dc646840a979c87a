"""Who may touch a stream, and what it is to them: 404, 410 or the stream."""

from typing import Annotated

from fastapi import Query

from gateway.state import ANONYMOUS, GatewayState
from shared.broker.answers import Gone, Lost, Page
from shared.broker.client import run
from shared.broker.scripts import MOST_EVENTS
from shared.errors import StreamGone, StreamNotFound, StreamRecovering
from shared.protocol.ids import START, EventId, is_stream_id

Ticket = Annotated[str | None, Query(description="from the `stream_url` of `POST /chat`")]


async def read_own(
    gateway: GatewayState, stream_id: str, after: EventId = START, *, most_events: int = MOST_EVENTS
) -> Page:
    """A page of the caller's own stream. Raises :class:`StreamNotFound` also for somebody else's, so that an id
    cannot be probed, :class:`StreamGone` for what was the caller's own, and
    :class:`StreamRecovering` where Redis may just have lost it."""
    if not is_stream_id(stream_id):
        raise StreamNotFound
    page = await run(gateway.client, gateway.scripts.read(stream_id, after, most_events=most_events))
    if page is Lost.MAYBE:
        raise StreamRecovering
    if page is None or page.principal != ANONYMOUS:
        raise StreamNotFound
    if isinstance(page, Gone):
        raise StreamGone
    return page


def check_ticket(gateway: GatewayState, ticket: str | None, stream_id: str) -> None:
    """Raises :class:`InvalidTicket` where one is given and is not good."""
    if ticket is not None:
        gateway.tickets.check(ticket, stream_id)
