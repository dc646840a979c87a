"""One gateway process: a listening socket with the right options, and the server on it."""

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from gateway.api.live_route import LiveRoutes
from gateway.api.open_gateway import LOCAL, PUBLIC, with_open_gateway_checks
from gateway.api.preflights import with_preflight_errors
from gateway.api.response_sockets.handshake import with_response_sockets
from gateway.app import create_app, failed, misconfigured
from gateway.auth.grants import GrantEnded
from gateway.auth.json_web_tokens import JsonWebTokens
from gateway.edge.cors import with_cors
from gateway.edge.crowd import most_connections
from gateway.edge.head import with_head
from gateway.edge.middleware import EdgeMiddleware
from gateway.edge.protocol import protocol
from gateway.edge.web_socket import web_socket_protocol
from gateway.live.sse import Stalled
from gateway.live.subscription import Drained
from shared.configuration.configuration import Configuration
from shared.exit_codes import CONFIGURATION_ERROR
from shared.hangup import Hangup
from shared.logs import configure_logging
from shared.polling import next_poll
from shared.service_manager import READY, STOPPING, notify, signs_of_life
from shared.settings import Settings, SettingsError
from shared.tracing_setup import configure_tracing
from shared.version import VERSION

logger = logging.getLogger(__name__)

_BACKLOG = 2048
#: The kernel accepts no larger one.
_LONGEST_SEGMENT = 32_767
#: Uvicorn's ticks in a second, and in the number after which it begins to count again.
_TICKS_PER_S, _MOST_TICKS = 10, 864_000


def run(configuration: Configuration, hangup: Hangup) -> None:
    """Serve until SIGTERM or SIGINT. Exit with 1 if the address is unavailable or a part of the gateway failed, with
    2 if a restart cannot help."""
    settings = configuration.settings
    configure_logging(settings.log_level, settings.log_format)
    try:
        tracing = configure_tracing(settings, "gateway")
    except SettingsError as error:
        logger.critical("settings invalid", extra={"detail": str(error)})
        sys.exit(CONFIGURATION_ERROR)
    try:
        listener = _listen(settings)
    except OSError as error:
        fields = {"host": settings.host, "port": settings.port, "error": error.strerror}
        logger.critical("cannot listen", extra=fields)
        sys.exit(1)
    try:
        _check(settings)
        app = create_app(configuration, hangup)
    except SettingsError as error:
        logger.critical("settings invalid", extra={"detail": str(error)})
        sys.exit(CONFIGURATION_ERROR)
    served = with_response_sockets(LiveRoutes(app), app, settings, tracing)
    checked = with_cors(with_head(served), settings.cors_origins)
    checked = with_open_gateway_checks(with_preflight_errors(checked, settings), settings)
    config = server_config(settings, EdgeMiddleware(checked, tracing))
    port = listener.getsockname()[1]
    logger.info("listening", extra={"host": settings.host, "port": port, "version": VERSION})
    if not settings.authentication:
        logger.warning("authentication disabled", extra={"detail": PUBLIC if settings.auth else LOCAL})
    logging.getLogger("uvicorn.error").addFilter(_needs_trace)
    # Otherwise sse-starlette would cut the streams before the hub has drained them.
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises them again once it has drained; a requested shutdown is a success, not a death by signal.
        signal.signal(number, lambda *_: None)
    _Server(config, app).run(sockets=[listener])
    tracing.close()
    if misconfigured.is_set():
        sys.exit(CONFIGURATION_ERROR)
    if failed.is_set():
        sys.exit(1)


def _check(settings: Settings) -> None:
    """Check what only a look outside shows. Raises :class:`SettingsError`."""
    if "jwt" in settings.authentication:
        JsonWebTokens(settings).check()
    if settings.archive_url is not None:
        from shared.archive.archive import check_archive  # noqa: PLC0415  slow to load

        asyncio.run(check_archive(settings))


def server_config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol(settings, most_connections()),
        ws=web_socket_protocol(settings),
        ws_max_size=settings.max_body_bytes,
        ws_ping_interval=settings.heartbeat_s,
        ws_ping_timeout=settings.websocket_pong_timeout_s,
        # A compressed message of a few kilobytes may be as large as a message may be.
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Passed even if empty: without it, the server would trust every peer on loopback.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=round(settings.drain_s),
    )


class _Server(uvicorn.Server):
    """Uvicorn server that drains on the first signal (no new connections, no new work, live streams sent elsewhere)
    and leaves at once on the second. It ticks once a second instead of ten times: nine of ten ticks only look for a
    signal."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: list[socket.socket] = []
        self._exiting = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with signs_of_life():
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets or []
        await super().startup(sockets)
        if not self.should_exit:
            notify(READY)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None and not self.should_exit:
            self._loop.call_soon_threadsafe(self._drain)
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        ticks = 0
        exiting = asyncio.create_task(self._exiting.wait())
        while not await self.on_tick(ticks):
            ticks = (ticks + _TICKS_PER_S) % _MOST_TICKS
            waiting: list[asyncio.Future[Any]] = [exiting, next_poll(1)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        exiting.cancel()

    def _drain(self) -> None:
        """Stop listening, then cut the live streams: a client that reconnects at once must not come back here."""
        self._exiting.set()
        notify(STOPPING)
        for server in getattr(self, "servers", ()):  # none before the end of the startup
            server.close()
        for listener in self._sockets:
            listener.close()
        self._app.state.gateway.hub.drain()


def _needs_trace(record: logging.LogRecord) -> bool:
    """Return False for connections cut by us, or by the client in the middle of its request: they need no trace."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, Drained | Stalled | GrantEnded | ClientDisconnect)


def _listen(settings: Settings) -> socket.socket:
    """Open the listening socket; accepted connections inherit its options.

    A small send buffer makes a slow client felt here, instead of megabytes in the kernel. The user timeout makes the
    kernel drop a peer that takes nothing for that long; closing alone would not, because the socket would wait to
    flush.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
    if sys.platform == "linux":
        # The buffer must hold several segments. On loopback, as behind a proxy of this machine, one has 64 KiB: each
        # part of a large response would wait 40 ms for a delayed acknowledgement.
        segment_bytes = min(settings.send_buffer_bytes // 4, _LONGEST_SEGMENT)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # asyncio sets it itself only for sockets that were made with proto=IPPROTO_TCP.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        timeout_ms = round(settings.write_deadline_s * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
    listener.bind((settings.host, settings.port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener
