"""The beginning of a WebSocket: authentication, the check of a browser's page, and the upgrade."""

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import errors
from gateway.api.response_sockets.connection import ResponseSocket
from gateway.api.response_sockets.exchange import ROUTE, request_of
from gateway.auth.pages import PageCheck
from gateway.auth.principal import Principal
from gateway.state import GatewayState
from shared.errors import Draining, OriginRefused
from shared.settings import Settings
from shared.tracing import Tracing

#: Subprotocol in which a browser sends its key, since it can set no header fields. The name is OpenAI's.
KEY_SUBPROTOCOL: Final = "openai-insecure-api-key."
_REFUSED: Final = "origin: pages of this origin may not use this server; ask its operator to allow the origin"
_DETAIL: Final = "HEADRACE_CORS_ORIGINS does not list the origin of the page; add it there if the page is yours"


def with_response_sockets(app: ASGIApp, application: FastAPI, settings: Settings, tracing: Tracing) -> ASGIApp:
    """Wrap ``app``, which gets all requests but WebSockets. ``application``: holder of the gateway's state."""
    page_check = PageCheck(settings, allows_any=True)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        scope.update(app=application, route=ROUTE)
        await _serve(scope, receive, send, page_check, tracing)

    return serve


async def _serve(scope: Scope, receive: Receive, send: Send, page_check: PageCheck, tracing: Tracing) -> None:
    gateway: GatewayState = scope["app"].state.gateway
    request = _authenticating(scope)
    await receive()  # the server's notice of the handshake
    with gateway.connections.place() as place:
        try:
            caller = await _caller(gateway, request, page_check)
            place.take(caller.id)
        except Exception as error:  # noqa: BLE001  as an HTTP server does
            response = await errors.response_to(request_of(scope), error)
            await response(scope, receive, send)
            return
        await send({"type": "websocket.accept", "subprotocol": _chosen(scope["subprotocols"]), "headers": []})
        await ResponseSocket(gateway, caller, scope, tracing).run(receive, send)


async def _caller(gateway: GatewayState, request: Request, page_check: PageCheck) -> Principal:
    """Return the caller. A browser connects for pages of any site, and CORS does not hold for WebSockets."""
    if gateway.hub.draining:
        raise Draining
    if page_check.is_foreign(request.scope):
        raise OriginRefused(_REFUSED, detail=_DETAIL, origin=request.headers.get("origin"))
    return await gateway.authenticator.principal(request)


def _authenticating(scope: Scope) -> Request:
    """Return the handshake as a request, with the key of a subprotocol as the header field that it stands for."""
    request = request_of(scope)
    key = next((name for name in scope["subprotocols"] if name.startswith(KEY_SUBPROTOCOL)), None)
    if key is not None and not {"authorization", "x-api-key"} & set(request.headers):
        bearer = f"Bearer {key.removeprefix(KEY_SUBPROTOCOL)}"
        headers = [*request.scope["headers"], (b"authorization", bearer.encode("latin-1"))]
        return Request({**request.scope, "headers": headers})
    return request


def _chosen(offered: Sequence[str]) -> str | None:
    """Return the subprotocol of the connection: browsers require one of those that they offer, and none is a key."""
    return next((name for name in offered if not name.startswith(KEY_SUBPROTOCOL)), None)
