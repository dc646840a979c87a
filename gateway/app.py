"""The composition root: what a gateway consists of, and how it is put together."""

import asyncio
import logging
import os
import secrets
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from gateway.api import (
    anthropic,
    chat,
    description,
    errors,
    listing,
    openai,
    ops,
    page,
    responses,
    service,
    streams,
    ui_messages,
)
from gateway.api.listing import TicketRequest
from gateway.auth.authenticator import Authenticator
from gateway.auth.rights import LiveRights
from gateway.backlog import Backlog
from gateway.dispatch import Dispatch
from gateway.glance import Glance
from gateway.hub import Hub
from gateway.models import Models
from gateway.redis_figures import keep_redis_figures
from gateway.state import GatewayState
from gateway.tickets import Tickets
from shared.broker.client import BrokerUnfit, Client, check_fitness, connect
from shared.broker.line import Line
from shared.broker.processes import Load, Presence
from shared.broker.scripts import StreamScripts
from shared.broker.sweep import Sweep
from shared.errors import BrokerUnavailable
from shared.garbage import settle_garbage_collector
from shared.metrics import SWEPT, LoopLag
from shared.schemas import ChatRequest
from shared.settings import Settings
from shared.stopping import cancel_all

logger = logging.getLogger(__name__)

#: Set when this process leaves because it cannot go on; it then exits with 1.
failed = threading.Event()


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = _Parts(settings)
        app.state.gateway = parts.state
        try:
            yield
        finally:
            await parts.aclose()

    app = FastAPI(
        title="Headrace",
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        # Their scripts come from elsewhere, and would run in the origin of the chat page.
        docs_url=None,
        redoc_url=None,
        # Its own would show whole URLs, and tickets are in those: gateway/edge/record.py has ours.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        generate_unique_id_function=lambda route: route.name,
    )
    for module in (
        # They are tried in this order: what is asked for most comes first.
        *(chat, streams, openai, anthropic, responses, ui_messages),
        *(listing, service, ops, page),
    ):
        app.include_router(module.router)
    app.mount("/page", page.PageFiles())
    errors.install(app)
    description.install(app, ChatRequest, TicketRequest, is_open=not settings.authentication)
    return app


class _Parts:
    """The parts of this process, put together; made within its event loop."""

    def __init__(self, settings: Settings) -> None:
        self._client = client = connect(settings.redis_url)
        self._lines = [Line(settings.redis_url) for _ in range(3)]
        reading, telling, sweeping = self._lines
        scripts = StreamScripts(settings)
        gateway_id = f"g{secrets.token_hex(4)}"
        hub = Hub(client, reading, telling, scripts, settings, gateway_id)
        backlog = Backlog(client, settings.queue_timeout_s)
        dispatch = Dispatch(client, scripts, settings, backlog)
        self.authenticator = Authenticator(settings, client)
        rights = LiveRights(self.authenticator.api_keys)
        self.state = GatewayState(
            settings=settings,
            client=client,
            scripts=scripts,
            hub=hub,
            models=Models(client, settings.fallbacks),
            dispatch=dispatch,
            tickets=Tickets(settings),
            authenticator=self.authenticator,
            rights=rights,
            backlog=backlog,
            glance=Glance(client),
        )
        lag = LoopLag()
        self._presence = Presence(client, gateway_id, "gateway", lambda: _load_of(hub, lag))
        sweep = Sweep(
            client,
            sweeping,
            scripts,
            settings,
            own_id=gateway_id,
            put_back=dispatch.enqueue,
            count=lambda reason: SWEPT.labels(reason).inc(),
        )
        works = (
            hub.follow_tails(),
            hub.hear_growth(),
            hub.keep_leases(),
            hub.follow_places(),
            sweep.run(),
            rights.run(),
            backlog.run(),
            self._presence.run(),
            lag.run(),
            keep_redis_figures(client),
            _leave_if_unfit(client),
        )
        self._tasks = [asyncio.create_task(work) for work in works]
        for task in self._tasks:
            task.add_done_callback(_leave_if_broken)
        settle_garbage_collector()

    async def aclose(self) -> None:
        await cancel_all(self._tasks)
        await self._presence.leave()
        await self._client.aclose()
        for line in self._lines:
            await line.aclose()


def _load_of(hub: Hub, lag: LoopLag) -> Load:
    streams, readers = hub.load
    return Load(streams=streams, readers=readers, lag_s=lag.worst_s, draining=hub.draining)


async def _leave_if_unfit(client: Client) -> None:
    """A Redis that would drop answers stops the start; one that is away is waited for, with 503 meanwhile."""
    while True:
        try:
            await check_fitness(client)
        except BrokerUnavailable:
            await asyncio.sleep(0.5)
        else:
            return


def _leave_if_broken(task: asyncio.Task[None]) -> None:
    """Without its tasks a gateway would answer and never deliver: rather leave, and be restarted."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        return
    if isinstance(error, BrokerUnfit):
        logger.critical("%s", error.message)
    else:
        logger.critical("a task of the hub broke", exc_info=error)
    failed.set()
    os.kill(os.getpid(), signal.SIGTERM)
