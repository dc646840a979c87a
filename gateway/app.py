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

from gateway.api import ai_sdk as ui_messages
from gateway.api import anthropic, chat, errors, listing, ops, service, streams
from gateway.api import openai_chat as openai
from gateway.api import openai_responses as responses
from gateway.api import openapi as description
from gateway.api import web_pages as page
from gateway.api.listing import TicketRequest
from gateway.auth.authenticator import Authenticator
from gateway.auth.grants import LiveGrants
from gateway.auth.tickets import Tickets
from gateway.glance import Glance
from gateway.intake.backlog import Backlog
from gateway.intake.dispatch import Dispatch
from gateway.intake.models import Models
from gateway.live.hub import Hub
from gateway.redis_metrics import update_redis_metrics
from gateway.state import GatewayState
from shared.broker.client import BrokerUnfit, Client, check_fitness, connect
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.processes import Load, Presence
from shared.broker.scripts import StreamScripts
from shared.broker.sweep import Sweep
from shared.cancellation import cancel_all
from shared.errors import BrokerUnavailable
from shared.garbage import settle_garbage_collector
from shared.metrics import SWEPT, LoopLag
from shared.schemas import ChatRequest
from shared.settings import Settings

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
        # Its own would show whole URLs, and tickets are in those: gateway/edge/request_log.py has ours.
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
        self._lines = [PipelineConnection(settings.redis_url) for _ in range(3)]
        reading, telling, sweeping = self._lines
        scripts = StreamScripts(settings)
        gateway_id = f"g{secrets.token_hex(4)}"
        hub = Hub(client, reading, telling, scripts, settings, gateway_id)
        backlog = Backlog(client, settings.queue_timeout_s)
        dispatch = Dispatch(client, scripts, settings, backlog)
        self.authenticator = Authenticator(settings, client)
        rights = LiveGrants(self.authenticator.api_keys)
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
            requeue=dispatch.enqueue,
            count=lambda reason: SWEPT.labels(reason).inc(),
        )
        works = (
            hub.follow_tails(),
            hub.listen_for_growth(),
            hub.keep_leases(),
            hub.follow_queue_positions(),
            sweep.run(),
            rights.run(),
            backlog.run(),
            self._presence.run(),
            lag.run(),
            update_redis_metrics(client),
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
