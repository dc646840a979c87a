"""HEAD, for every path that has GET: the same status and header fields, without a body."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.edge.middleware import SEND_BODY


def with_head(app: ASGIApp) -> ASGIApp:
    """Wrap ``app``, which handles GET only."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await app(scope, receive, send)
            return
        head = _Head(receive, send)
        # The server must see HEAD itself: it then expects no body of the announced length.
        as_get = {**scope, "method": "GET", SEND_BODY: head.send}
        try:
            await app(as_get, head.receive, head.send)
        finally:
            scope.update({name: as_get[name] for name in ("route", "path_params") if name in as_get})

    return respond


class _Head:
    """The response to one HEAD. It ends with its header fields; a stream then sees its client leave."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._has_ended = asyncio.Event()

    async def receive(self) -> Message:
        if self._has_ended.is_set():
            return {"type": "http.disconnect"}
        receiving = asyncio.ensure_future(self._receive())
        ending = asyncio.ensure_future(self._has_ended.wait())
        try:
            await asyncio.wait((receiving, ending), return_when=asyncio.FIRST_COMPLETED)
            return receiving.result() if receiving.done() else {"type": "http.disconnect"}
        finally:
            receiving.cancel()
            ending.cancel()

    async def send(self, message: Message) -> None:
        if self._has_ended.is_set():
            return
        await self._send(message)
        if message["type"] == "http.response.start":
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._has_ended.set()
