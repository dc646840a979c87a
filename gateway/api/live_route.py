"""Routes without FastAPI's solution of dependencies, which takes a sixth of a gateway's CPU for a short answer, and
without its layers, which take another twelfth."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
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


class LiveRoutes:
    """An application that hands the requests for its live routes to these routes themselves. Errors are handled as in
    the application, which gets all other requests."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        found = [context.original_route for context in iter_route_contexts(app.routes)]
        live = [route for route in found if isinstance(route, LiveRoute) and not route.param_convertors]
        self._routes = {route.path: route for route in live}
        handlers = dict(app.exception_handlers)
        unexpected = handlers.pop(Exception)
        self._handle = ServerErrorMiddleware(ExceptionMiddleware(_handle, handlers), unexpected)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] not in (route.methods or ()):
            await self._app(scope, receive, send)
            return
        scope.update(app=self._app, route=route, path_params={})
        await self._handle(scope, receive, send)


async def _handle(scope: Scope, receive: Receive, send: Send) -> None:
    await scope["route"].handle(scope, receive, send)
