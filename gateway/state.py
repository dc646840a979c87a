"""State that all request handlers of this process share; made once, in ``app.lifespan``."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from gateway.api.response_sockets.kept_inputs import KeptInputs
from gateway.auth.authenticator import Authenticator
from gateway.auth.grants import LiveGrants
from gateway.auth.link_revocations import LinkRevocations
from gateway.auth.principal import Principal
from gateway.auth.tickets import Tickets
from gateway.cache import ExpiringCache
from gateway.intake.backlog import Backlog
from gateway.intake.body_memory import BodyMemory
from gateway.intake.dispatch import Dispatch
from gateway.intake.models import Models
from gateway.intake.request_hooks import RequestHooks
from gateway.live.connections import Connections, Place
from gateway.live.hub import Hub
from gateway.readiness import Readiness
from shared.broker.client import Client
from shared.broker.overview import Overview
from shared.broker.scripts import StreamScripts
from shared.protocol.ledger import Cost
from shared.settings import Settings
from shared.usage_report import UsageSource

if TYPE_CHECKING:
    from shared.archive.archive import Archive


@dataclass(frozen=True, slots=True)
class GatewayState:
    """``archive``: None if ``HEADRACE_ARCHIVE_URL`` is not set."""

    settings: Settings
    client: Client
    scripts: StreamScripts
    hub: Hub
    connections: Connections
    body_memory: BodyMemory
    kept_inputs: KeptInputs
    models: Models
    readiness: Readiness
    dispatch: Dispatch
    request_hooks: RequestHooks
    tickets: Tickets
    authenticator: Authenticator
    live_grants: LiveGrants
    link_revocations: LinkRevocations
    backlog: Backlog
    overview: ExpiringCache[None, Overview]
    archive: "Archive | None"
    usage: UsageSource
    cost_today: ExpiringCache[None, list[Cost]]


async def gateway_state(request: Request) -> GatewayState:
    return cast(GatewayState, request.app.state.gateway)


Gateway = Annotated[GatewayState, Depends(gateway_state)]


async def caller(request: Request, gateway: Gateway) -> Principal:
    return await gateway.authenticator.principal(request)


#: The authenticated caller. Raises :class:`Unauthenticated` before a handler begins.
Caller = Annotated[Principal, Depends(caller)]


async def connection_place(gateway: Gateway) -> AsyncIterator[Place]:
    """Provide the request's place among its principal's live connections, until its response has ended."""
    with gateway.connections.place() as place:
        yield place


ConnectionPlace = Annotated[Place, Depends(connection_place)]


async def live_connection(caller: Caller, place: ConnectionPlace) -> None:
    """Count the request as a live connection of its caller. Raises :class:`TooManyConnections`."""
    place.take(caller.id)


#: For routes that stream, or that wait for the end of a stream.
LIVE_CONNECTION = Depends(live_connection)
