"""A subscription as an HTTP response. Knows sockets and heartbeats, no event.

sse-starlette says what a response of server-sent events is; the sending is ours: it costs a third, and an idle client
two tasks in place of five (bench/NOTES.md).
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from gateway.subscription import Drained
from shared.settings import Settings

#: One newline: after ids, a blank line makes several clients dispatch an empty event (measured, docs/protocol.md).
HEARTBEAT: Final = b": ping\n"
#: Clients of a gateway that drains come back within this time.
_SPREAD_MS: Final = 2000


class Stalled(Exception):
    """The client took nothing for the write deadline. Raised through the server, which then cuts the connection."""


class StreamResponse(EventSourceResponse):
    """``chunks``: whole frames."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], settings: Settings, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(chunks, headers={"Cache-Control": "no-store", **(headers or {})})
        self._chunks = chunks
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = _Sending(send, self._settings)
        leaving = asyncio.create_task(_until_disconnect(receive, sending))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send_all(sending)
        except asyncio.CancelledError:
            if not sending.stopped:
                raise
            sending.task.uncancel()
            if not sending.client_left:
                raise Stalled from None
        finally:
            sending.close()
            leaving.cancel()
            await self._chunks.aclose()

    async def _send_all(self, sending: "_Sending") -> None:
        """``retry:`` stands inside the first block: some clients take a block of its own for an event. A drain ends
        with another one, so that not all come back at once; what is raised then keeps the body from ending properly,
        after which fetch-based clients would believe that all is well (measured)."""
        retry_ms = self._settings.retry_ms
        prefix = b"retry: %d\n" % retry_ms
        try:
            async for chunk in self._chunks:
                await sending.send(prefix + chunk)
                prefix = b""
        except Drained:
            await sending.send(b"retry: %d\n" % random.randint(retry_ms, retry_ms + _SPREAD_MS))  # noqa: S311  no secret
            raise
        await sending.send(b"", more=False)


class _Sending:
    """What goes to one client. One timer, set again only when it rings, sees to heartbeats and the write deadline."""

    def __init__(self, send: Send, settings: Settings) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  whoever sends, runs
        self.task = task
        self.stopped = False
        self.client_left = False
        self._send = send
        self._heartbeat_s = settings.heartbeat_s
        self._deadline_s = settings.write_deadline_s
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()  # when the last send began
        self._under_way = 0
        self._ping: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(min(self._heartbeat_s, self._deadline_s), self._ring)

    async def send(self, chunk: bytes, *, more: bool = True) -> None:
        message: Message = {"type": "http.response.body", "body": chunk, "more_body": more}
        self._since = self._loop.time()
        self._under_way += 1
        await self._send(message)
        self._under_way -= 1

    def stop(self, *, client_left: bool) -> None:
        """End the response from outside its own task."""
        if not self.stopped:
            self.stopped = True
            self.client_left = client_left
            self.task.cancel()

    def close(self) -> None:
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _ring(self) -> None:
        left_s = self._since + (self._deadline_s if self._under_way else self._heartbeat_s) - self._loop.time()
        if left_s <= 0 and self._under_way:
            self.stop(client_left=False)
            return
        if left_s <= 0:
            self._ping = self._loop.create_task(self.send(HEARTBEAT))
            left_s = self._heartbeat_s
        self._timer = self._loop.call_later(min(left_s, self._deadline_s), self._ring)


async def _until_disconnect(receive: Receive, sending: _Sending) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    sending.stop(client_left=True)
