"""Routes without FastAPI's solution of dependencies, which takes a sixth of a gateway's CPU for a short answer."""

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from gateway.state import gateway_state


class LiveRoute(APIRoute):
    """Route of live connections, which are counted by caller until the response has ended. Its handler takes a
    request, the gateway, the caller, and header fields that may be missing. FastAPI describes it like any other.

    Raises :class:`Unauthenticated` and :class:`TooManyConnections` before a handler begins."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._fields = [(field.name, field.alias) for field in self.dependant.header_params]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        gateway = await gateway_state(request)
        caller = await gateway.authenticator.principal(request)
        fields = {name: request.headers.get(alias) for name, alias in self._fields}
        with gateway.connections.place() as place:
            place.take(caller.id)
            response = await self.endpoint(request=request, gateway=gateway, caller=caller, **fields)
            await response(scope, receive, send)
