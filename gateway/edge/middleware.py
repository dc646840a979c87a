"""The outermost layer of the application, around its handling of errors too."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.edge.headers import complete
from gateway.edge.lingering_close import MOST_UNREAD_BYTES, UNREAD_S
from gateway.edge.request_log import RequestLog, begin
from shared.tracing import Tracing

#: In a request's scope: the ``send`` for the body of an answer that has begun; all layers between only hand it on.
SEND_BODY: Final = "headrace.send_body"


class EdgeMiddleware:
    """Gives every answer its header fields, has every request told of (``record.py``), and ends a connection whose
    request was answered with its body unread: what follows might be that body or another request, and a client that
    waited for ``100 Continue`` may send either."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = begin(scope, self._tracing)
        exchange = _Exchange(receive, send, record, has_body=_has_body(scope))
        scope[SEND_BODY] = exchange.send
        cut: BaseException | None = None
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            cut = error
            raise
        finally:
            record.tell(scope, cut)


class _Exchange:
    """``send`` is no coroutine but gives the server's own: a chunk of a stream passes none more for being here."""

    def __init__(self, receive: Receive, send: Send, record: RequestLog, *, has_body: bool) -> None:
        self._receive = receive
        self._send = send
        self._record = record
        self._is_unread = has_body
        self._ends = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._is_unread = False
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            fields = list(message.get("headers", ()))
            self._record.answered(message["status"], fields)
            message["headers"] = complete(fields, self._record.request_id)
            self._ends = self._is_unread
            if self._ends:
                message["headers"].append((b"connection", b"close"))
        elif self._ends and not message.get("more_body", False):
            return self._end(message)
        return self._send(message)

    async def _end(self, message: Message) -> None:
        """All but the closing, then the rest of the body, see ``unread.py``."""
        self._ends = False
        await self._send({**message, "more_body": True})
        left = MOST_UNREAD_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_S):
                while self._is_unread and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )
