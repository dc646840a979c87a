"""Server on a socket that streams from a hub, with the protocol and the edge of a gateway, without its routes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.auth.grants import Grant, LiveGrants
from gateway.dialects.native import Native
from gateway.edge.body_writer import BODY_WRITER, BodyWriter
from gateway.edge.head import with_head
from gateway.edge.middleware import EdgeMiddleware
from gateway.edge.protocol import protocol
from gateway.live.hub import Hub
from gateway.live.renderer import Renderer
from gateway.live.sse import StreamResponse
from gateway.live.subscription import Subscription
from gateway.main import server_config
from shared.protocol.ids import EventId, parse_cursor
from shared.settings import Settings
from shared.tracing import Tracing
from tests.fundamentals.live import WrittenStream
from tests.sse_client import SseConnection, open_sse


@dataclass
class Server:
    """ASGI application. ``renderer_of`` makes the renderer of each response, ``writer_of`` replaces its writer.
    ``subscriptions`` are in the order of their requests."""

    hub: Hub
    stream: WrittenStream
    settings: Settings
    renderer_of: Callable[[str], Renderer] = Native
    writer_of: Callable[[BodyWriter], BodyWriter] = lambda writer: writer
    url: str = ""
    port: int = 0
    subscriptions: list[Subscription] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        cursor = parse_cursor(headers.get(b"last-event-id", b"").decode())
        page = await self.stream.log_page(cursor)
        subscription = Subscription(self.hub, self.stream.id, cursor, page, self.renderer_of(self.stream.id))
        self.subscriptions.append(subscription)
        scope[BODY_WRITER] = self.writer_of(scope[BODY_WRITER])
        grant = LiveGrants(None, None).watch(Grant("p"))
        response = StreamResponse(subscription.chunks(), self.settings, grant, subscription=subscription)
        await response(scope, receive, send)

    async def connect(self, cursor: str = "", *, receive_buffer: int | None = None) -> SseConnection:
        return await open_sse("GET", self.url, headers={"Last-Event-ID": cursor}, receive_buffer=receive_buffer)

    async def caught_up(self, count: int, seq: int) -> None:
        """Wait until ``count`` readers have come, and all have event ``seq``."""
        at = EventId(self.stream.epoch, seq)
        async with asyncio.timeout(60):
            while len(self.subscriptions) < count or any(reader.cursor != at for reader in self.subscriptions):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def served(
    hub: Hub,
    stream: WrittenStream,
    renderer_of: Callable[[str], Renderer] = Native,
    writer_of: Callable[[BodyWriter], BodyWriter] = lambda writer: writer,
    **settings: object,
) -> AsyncIterator[Server]:
    """Serve ``stream``. ``settings`` are those of the gateway."""
    made = Settings.model_validate(settings)
    app = Server(hub, stream, made, renderer_of, writer_of)
    config = server_config(made, EdgeMiddleware(with_head(app), Tracing()))
    config.http, config.lifespan = protocol(made, 10_000), "off"
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, made.send_buffer_bytes)
    app.port = listener.getsockname()[1]
    app.url = f"http://127.0.0.1:{app.port}/"
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield app
    finally:
        server.should_exit = server.force_exit = True
        with suppress(asyncio.CancelledError):
            await task
