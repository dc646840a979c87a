"""HTTP response with server-sent events: sockets, heartbeats and deadlines. Independent of the events' content.

sse-starlette defines the media type and headers of such a response. Making it and sending it are implemented here:
sending costs a third of sse-starlette's, and an idle client needs three tasks instead of five (bench/NOTES.md).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.auth.grants import GrantEnded
from gateway.edge.body_writer import BODY_WRITER, BodyWriter
from gateway.edge.headers import Field
from gateway.edge.middleware import SEND_BODY
from gateway.live.renderer import HEARTBEAT
from gateway.live.subscription import Drained, Subscription
from shared.settings import Settings

#: Clients of a gateway that drains reconnect at random moments within this time.
_RECONNECT_SPREAD_MS: Final = 2000
_MAX_WRITE_BYTES: Final = 128 * 1024


class Stalled(Exception):
    """The client accepted no data within the write deadline. Propagates to the server, which then closes the
    connection."""


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield


_FIELDS: Final[tuple[Field, ...]] = tuple(EventSourceResponse(_nothing()).raw_headers)


def _ping() -> bytes:
    return HEARTBEAT


class StreamResponse(Response):
    """Response that streams ``chunks``, which are whole frames. ``grant`` is a context manager that yields a future;
    the response ends early when that is done (``gateway/auth/grants.py``). ``subscription``: source of the chunks. It
    may write to the connection itself while no chunk is under way."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        settings: Settings,
        grant: AbstractContextManager[asyncio.Future[None]],
        headers: Mapping[str, str] | None = None,
        subscription: Subscription | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        own = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.raw_headers = [*_FIELDS, *own]
        self._chunks = chunks
        self._subscription = subscription
        self._settings = settings
        self._grant = grant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response in a task of its own. Once it has begun, chunks bypass the application's middleware: two
        coroutines hand a chunk to the server, instead of the twenty of an ASGI stack."""
        heartbeat = _ping if self._subscription is None else self._subscription.heartbeat
        client = _Client(send, scope.get(SEND_BODY, send), scope.get(BODY_WRITER), self._settings, heartbeat)
        sending = asyncio.create_task(self._send_all(client))
        leaving = asyncio.create_task(wait_for_disconnect(receive))
        with self._grant as ended:
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
        """Send all chunks. ``retry:`` is part of the first block, because some clients take a block of its own for an
        event. A drain ends with another ``retry:``, so that clients do not reconnect all at once. It then raises,
        which leaves the body incomplete: fetch-based clients take a complete body for the end of the stream
        (measured)."""
        retry_ms = self._settings.retry_ms
        prefix = b"retry: %d\n" % retry_ms
        try:
            await client.begin(self.status_code, self.raw_headers)
            async for chunk in self._chunks:
                await client.send(prefix + chunk)
                if prefix and self._subscription is not None:
                    self._subscription.write = client.write
                prefix = b""
            await client.send(b"", more=False)
        except Drained:
            await client.send(b"retry: %d\n" % random.randint(retry_ms, retry_ms + _RECONNECT_SPREAD_MS))  # noqa: S311  no secret
            raise
        except asyncio.CancelledError:
            if client.stalled:
                raise Stalled from None
            raise
        finally:
            client.close()
            await self._chunks.aclose()


class _Client:
    """Connection to one client. A single timer, set again only when it fires, serves heartbeats and the write
    deadline."""

    def __init__(
        self,
        send: Send,
        send_body: Send,
        body: BodyWriter | None,
        settings: Settings,
        heartbeat: Callable[[], bytes],
    ) -> None:
        self.stalled = False
        self._send = send
        self._send_body = send_body
        self._body = body
        self._heartbeat = heartbeat
        self._heartbeat_s = settings.heartbeat_s
        self._deadline_s = settings.write_deadline_s
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._last_write_at = self._loop.time()  # when the last write began
        self._active_sends = 0
        self._ping: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(min(self._heartbeat_s, self._deadline_s), self._on_timer)

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._task = asyncio.current_task()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a chunk, in pieces if it is large: a slow client can take one piece within the write deadline."""
        self._active_sends += 1
        try:
            while True:
                piece, chunk = chunk[:_MAX_WRITE_BYTES], chunk[_MAX_WRITE_BYTES:]
                self._last_write_at = self._loop.time()
                await self._send_body({"type": "http.response.body", "body": piece, "more_body": more or bool(chunk)})
                if not chunk:
                    return
        finally:
            self._active_sends -= 1

    def write(self, chunk: bytes) -> bool:
        """Write a chunk at once. Return False, and write nothing, if the client has no room or the chunk is large."""
        body = self._body
        if body is None or self._active_sends or len(chunk) > _MAX_WRITE_BYTES or not body.write(chunk):
            return False
        self._last_write_at = self._loop.time()
        return True

    async def _send_ping(self) -> None:
        # An event may have begun meanwhile; a heartbeat between its pieces would corrupt it.
        if not self._active_sends:
            await self.send(self._heartbeat())

    def close(self) -> None:
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _on_timer(self) -> None:
        left_s = (
            self._last_write_at + (self._deadline_s if self._active_sends else self._heartbeat_s) - self._loop.time()
        )
        if left_s <= 0 and self._active_sends and self._task is not None:
            self.stalled = True
            self._task.cancel()
            return
        if left_s <= 0:
            self._ping = self._loop.create_task(self._send_ping())
            left_s = self._heartbeat_s
        self._timer = self._loop.call_later(min(left_s, self._deadline_s), self._on_timer)


async def wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client closes the connection. Discards the rest of the request's body."""
    while (await receive())["type"] != "http.disconnect":
        pass
