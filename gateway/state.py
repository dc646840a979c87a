"""What every request handler of this process shares; made once, in ``app.lifespan``."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from gateway.dispatch import Dispatch
from gateway.hub import Hub
from gateway.models import Models
from gateway.tickets import Tickets
from shared.broker.client import Client
from shared.broker.scripts import StreamScripts
from shared.settings import Settings

#: Who asks, until there is authentication.
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class GatewayState:
    settings: Settings
    client: Client
    scripts: StreamScripts
    hub: Hub
    models: Models
    dispatch: Dispatch
    tickets: Tickets


async def gateway_state(request: Request) -> GatewayState:
    return cast(GatewayState, request.app.state.gateway)


Gateway = Annotated[GatewayState, Depends(gateway_state)]
