"""The outermost ASGI layer, around the application's error handling too."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.edge.headers import with_defaults
from gateway.edge.lingering_close import LINGER_S, MOST_LINGER_BYTES
from gateway.edge.request_log import RequestLog, begin_request_log
from gateway.intake.body_memory import release_body
from shared.tracing import Tracing

#: Key in a request's scope: the ``send`` for the body of a response that has begun. All layers between only pass it
#: on.
SEND_BODY: Final = "headrace.send_body"

_HANDSHAKE: Final = frozenset({"websocket.accept", "websocket.http.response.start"})


class EdgeMiddleware:
    """Adds the default header fields, logs every request (``request_log.py``), and closes a connection if its request
    was answered with its body unread: the next bytes might be that body or another request, and a client that waited
    for ``100 Continue`` may send either."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._serve_web_socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_log = begin_request_log(scope, self._tracing)
        exchange = _Exchange(receive, send, request_log, has_body=_has_body(scope))
        scope[SEND_BODY] = exchange.send
        cut: BaseException | None = None
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            cut = error
            raise
        finally:
            release_body()
            request_log.write(scope, cut)

    async def _serve_web_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Log the connection at its end, with the status of the handshake."""
        request_log = begin_request_log(scope, self._tracing)

        async def sending(message: Message) -> None:
            if message["type"] in _HANDSHAKE:
                fields = list(message.get("headers", ()))
                request_log.responded(message.get("status", 101), fields)
                message["headers"] = with_defaults(fields, request_log.request_id)
            await send(message)

        cut: BaseException | None = None
        try:
            await self._app(scope, receive, sending)
        except BaseException as error:
            cut = error
            raise
        finally:
            request_log.write(scope, cut)


class _Exchange:
    """One request and its response. ``send`` is no coroutine itself but returns the server's own, so that a chunk of
    a stream passes no extra coroutine."""

    def __init__(self, receive: Receive, send: Send, request_log: RequestLog, *, has_body: bool) -> None:
        self._receive = receive
        self._send = send
        self._request_log = request_log
        self._body_is_unread = has_body
        self._must_close = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_is_unread = False
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            fields = list(message.get("headers", ()))
            self._request_log.responded(message["status"], fields)
            message["headers"] = with_defaults(fields, self._request_log.request_id)
            self._must_close = self._body_is_unread
            if self._must_close:
                message["headers"].append((b"connection", b"close"))
        elif self._must_close and not message.get("more_body", False):
            return self._end(message)
        return self._send(message)

    async def _end(self, message: Message) -> None:
        """Send the last chunk, drain the unread body (see ``lingering_close.py``), then end the response."""
        self._must_close = False
        await self._send({**message, "more_body": True})
        left = MOST_LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._body_is_unread and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )
