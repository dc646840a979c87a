"""What every request handler of this process shares; made once, in ``app.lifespan``."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from gateway.auth.authenticator import Authenticator
from gateway.auth.principal import Principal
from gateway.auth.rights import LiveRights
from gateway.backlog import Backlog
from gateway.dispatch import Dispatch
from gateway.glance import Glance
from gateway.hub import Hub
from gateway.models import Models
from gateway.tickets import Tickets
from shared.broker.client import Client
from shared.broker.scripts import StreamScripts
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class GatewayState:
    settings: Settings
    client: Client
    scripts: StreamScripts
    hub: Hub
    models: Models
    dispatch: Dispatch
    tickets: Tickets
    authenticator: Authenticator
    rights: LiveRights
    backlog: Backlog
    glance: Glance


async def gateway_state(request: Request) -> GatewayState:
    return cast(GatewayState, request.app.state.gateway)


Gateway = Annotated[GatewayState, Depends(gateway_state)]


async def caller(request: Request, gateway: Gateway) -> Principal:
    return await gateway.authenticator.principal(request)


#: Who asks. Raises :class:`Unauthenticated` before a handler begins.
Caller = Annotated[Principal, Depends(caller)]
