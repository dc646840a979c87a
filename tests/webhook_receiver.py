"""A receiver of webhooks on a real port, which verifies them as an application does."""

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

SECRET = f"whsec_{base64.b64encode(b'a secret of the tests, 32 bytes.').decode()}"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Delivery:
    id: str
    event: dict[str, Any]
    headers: dict[str, str]
    body: str
    path: str


@dataclass
class WebhookReceiver:
    """``answer``: what the receiver does with a webhook that it has verified; it accepts all by default. ``tls``: a
    context with its certificate for ``localhost``."""

    secret: str = SECRET
    answer: Answer | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    port: int = 0
    tls: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/hook" if self.tls else f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> "WebhookReceiver":
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def of(self, stream_id: str) -> list[Delivery]:
        """Return the webhooks about one stream."""
        return [each for each in self.deliveries if stream_id in each.body]

    async def next_of(self, stream_id: str, count: int = 1) -> list[Delivery]:
        async with asyncio.timeout(40):
            while len(self.of(stream_id)) < count:
                await asyncio.sleep(0.02)
        return self.of(stream_id)

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        Webhook(self.secret).verify(body, headers)
        self.deliveries.append(Delivery(headers["webhook-id"], json.loads(body), headers, body, request.path))
        return await self.answer(request) if self.answer else web.Response(status=204)
