"""A subscription as an HTTP response. Knows sockets and heartbeats, no event.

sse-starlette says what a response of server-sent events is; the sending is ours: it costs a third, and an idle client
three tasks in place of five (bench/NOTES.md).
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from gateway.auth.grants import GrantEnded
from gateway.edge.middleware import SEND_BODY
from gateway.live.subscription import Drained
from shared.settings import Settings

#: One newline: after ids, a blank line makes several clients dispatch an empty event (measured, docs/protocol.md).
HEARTBEAT: Final = b": ping\n"
#: Clients of a gateway that drains come back within this time.
_SPREAD_MS: Final = 2000
_MOST_BYTES: Final = 128 * 1024


class Stalled(Exception):
    """The client took nothing for the write deadline. Raised through the server, which then cuts the connection."""


class StreamResponse(EventSourceResponse):
    """``chunks``: whole frames. ``right``: what may cut them off, see ``gateway/auth/grants.py``."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        settings: Settings,
        right: AbstractContextManager[asyncio.Future[None]],
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(chunks, headers={"Cache-Control": "no-store", **(headers or {})})
        self._chunks = chunks
        self._settings = settings
        self._right = right

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """In a task of its own, and past the application's layers once the answer has begun: a chunk is handed to the
        server by two coroutines in place of the twenty of an ASGI stack."""
        client = _Client(send, scope.get(SEND_BODY, send), self._settings)
        sending = asyncio.create_task(self._send_all(client))
        leaving = asyncio.create_task(_until_disconnect(receive))
        with self._right as ended:
            try:
                await asyncio.wait((sending, leaving, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                leaving.cancel()
                sending.cancel()
                await asyncio.wait((sending,))
            if ended.done():
                raise GrantEnded
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, client: "_Client") -> None:
        """``retry:`` stands inside the first block: some clients take a block of its own for an event. A drain ends
        with another one, so that not all come back at once; what is raised then keeps the body from ending properly,
        after which fetch-based clients would believe that all is well (measured)."""
        retry_ms = self._settings.retry_ms
        prefix = b"retry: %d\n" % retry_ms
        try:
            await client.begin(self.status_code, self.raw_headers)
            async for chunk in self._chunks:
                await client.send(prefix + chunk)
                prefix = b""
            await client.send(b"", more=False)
        except Drained:
            await client.send(b"retry: %d\n" % random.randint(retry_ms, retry_ms + _SPREAD_MS))  # noqa: S311  no secret
            raise
        except asyncio.CancelledError:
            if client.stalled:
                raise Stalled from None
            raise
        finally:
            client.close()
            await self._chunks.aclose()


class _Client:
    """What one client is sent. One timer, set again only when it rings, sees to heartbeats and the write deadline."""

    def __init__(self, send: Send, send_body: Send, settings: Settings) -> None:
        self.stalled = False
        self._send = send
        self._send_body = send_body
        self._heartbeat_s = settings.heartbeat_s
        self._deadline_s = settings.write_deadline_s
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._since = self._loop.time()  # when the last send began
        self._under_way = 0
        self._ping: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(min(self._heartbeat_s, self._deadline_s), self._ring)

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._task = asyncio.current_task()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes, *, more: bool = True) -> None:
        """Piece by piece, where an event is large: so much a slow client can take within the write deadline."""
        self._under_way += 1
        try:
            while True:
                piece, chunk = chunk[:_MOST_BYTES], chunk[_MOST_BYTES:]
                self._since = self._loop.time()
                await self._send_body({"type": "http.response.body", "body": piece, "more_body": more or bool(chunk)})
                if not chunk:
                    return
        finally:
            self._under_way -= 1

    async def _send_ping(self) -> None:
        if not self._under_way:  # an event may have begun since, and a large one goes out in pieces
            await self.send(HEARTBEAT)

    def close(self) -> None:
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _ring(self) -> None:
        left_s = self._since + (self._deadline_s if self._under_way else self._heartbeat_s) - self._loop.time()
        if left_s <= 0 and self._under_way and self._task is not None:
            self.stalled = True
            self._task.cancel()
            return
        if left_s <= 0:
            self._ping = self._loop.create_task(self._send_ping())
            left_s = self._heartbeat_s
        self._timer = self._loop.call_later(min(left_s, self._deadline_s), self._ring)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
