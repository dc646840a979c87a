"""The composition root: the parts of a gateway, and how they are put together."""

import asyncio
import logging
import os
import secrets
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from gateway.api import (
    ag_ui,
    ai_sdk,
    anthropic,
    chat,
    chats,
    connection,
    errors,
    listing,
    models,
    openai_chat,
    openai_responses,
    openapi,
    openapi_route,
    ops,
    ops_audit,
    response_inputs,
    service,
    streams,
    tickets,
    usage,
    web_pages,
)
from gateway.api.descriptions import TAGS
from gateway.api.response_sockets.kept_inputs import KeptInputs
from gateway.api.tickets import TicketRequest
from gateway.auth.authenticator import Authenticator
from gateway.auth.grants import LiveGrants
from gateway.auth.link_revocations import LinkRevocations
from gateway.auth.tickets import Tickets
from gateway.cache import ExpiringCache
from gateway.intake.acceptance import Acceptance
from gateway.intake.backlog import Backlog
from gateway.intake.body_memory import BodyMemory
from gateway.intake.budgets import RequestBudgets
from gateway.intake.dispatch import Dispatch
from gateway.intake.models import Models
from gateway.intake.request_hooks import RequestHooks
from gateway.intake.storage import Storage
from gateway.live.connections import Connections
from gateway.live.hub import Hub
from gateway.readiness import Readiness
from gateway.redis_metrics import update_redis_metrics
from gateway.state import GatewayState
from shared.broker.client import connect
from shared.broker.overview import read_overview
from shared.broker.processes import Load, Presence
from shared.broker.recorded_reload import RecordedReload
from shared.broker.scripts import StreamScripts
from shared.broker.shared_configuration import ConfigurationWatch
from shared.broker.sweep import Sweep
from shared.broker.watch import BrokerWatch
from shared.cancellation import cancel_all
from shared.configuration.configuration import Configuration
from shared.configuration.current import CurrentConfiguration
from shared.errors import BrokerMisconfigured
from shared.garbage import settle_garbage_collector
from shared.hangup import Hangup
from shared.hook_loading import load_hooks
from shared.metrics import SWEPT, LoopLag
from shared.schemas import ChatRequest
from shared.settings import Settings
from shared.usage_report import DeskUsage, UsageOfAllTimes, cost_today
from shared.version import VERSION

if TYPE_CHECKING:
    from shared.archive.archive import Archive
    from shared.archive.usage import ArchivedUsage

logger = logging.getLogger(__name__)

#: Operators' pages poll the overview; Redis is read once a second at most, however many pages are open.
_OVERVIEW_FRESH_S = 1.0
#: The costs of the day may be thousands of rows.
_COST_FRESH_S = 15.0

#: Set when this process stops because it cannot continue; it then exits with 1, or 2 if it is misconfigured.
failed = threading.Event()
misconfigured = threading.Event()


def create_app(configuration: Configuration, hangup: Hangup | None = None) -> FastAPI:
    """Make the application. Raises :class:`SettingsError` if its hooks cannot be imported."""
    settings = configuration.settings
    request_hooks = RequestHooks(load_hooks(settings), settings.hook_timeout_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _archive_of(settings) as archive:
            parts = _Parts(configuration, hangup, archive, request_hooks)
            app.state.gateway = parts.state
            try:
                yield
            finally:
                await parts.aclose()

    app = FastAPI(
        title="Headrace",
        version=VERSION,
        lifespan=lifespan,
        redirect_slashes=False,
        # The framework's pages load scripts of another origin; gateway/api/web_pages.py serves /docs from our own.
        docs_url=None,
        redoc_url=None,
        # FastAPI's own telemetry would show whole URLs, which contain tickets: gateway/edge/request_log.py has ours.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        generate_unique_id_function=lambda route: route.name,
        openapi_tags=TAGS,
        openapi_url=None,  # gateway/api/openapi_route.py
    )
    # Routes are matched in this order: the most requested ones come first.
    app.include_router(chat.live_router)
    app.include_router(openai_responses.live_router)
    for module in (
        *(chat, streams, openai_chat, anthropic, openai_responses, response_inputs, ai_sdk, ag_ui),
        *(listing, chats, tickets, service, connection, models, usage, ops, ops_audit, openapi_route, web_pages),
    ):
        app.include_router(module.router)
    web_pages.mount_files(app)
    errors.install(app)
    openapi.install(app, ChatRequest, TicketRequest, is_open=not settings.authentication)
    return app


@asynccontextmanager
async def _archive_of(settings: Settings) -> AsyncIterator["Archive | None"]:
    if settings.archive_url is None:
        yield None
        return
    from shared.archive.archive import open_archive  # noqa: PLC0415  slow to load

    async with open_archive(settings, migrates=False) as archive:
        yield archive


def _usage_in(archive: "Archive | None") -> "ArchivedUsage | None":
    if archive is None:
        return None
    from shared.archive.usage import ArchivedUsage  # noqa: PLC0415  slow to load

    return ArchivedUsage(archive)


class _Parts:
    """The parts of this process, put together; made within its event loop."""

    def __init__(
        self,
        configuration: Configuration,
        hangup: Hangup | None,
        archive: "Archive | None",
        request_hooks: RequestHooks,
    ) -> None:
        settings = configuration.settings
        self._client = client = connect(settings.redis_url, serves=True)
        scripts = StreamScripts(settings)
        gateway_id = f"g{secrets.token_hex(4)}"
        hub = Hub(client, scripts, settings, gateway_id)
        watch = BrokerWatch(client)
        current = CurrentConfiguration(configuration)
        reload = RecordedReload(client, current, "gateway", gateway_id)
        if hangup is not None:
            hangup.reload_with(reload.on_hangup)
        acceptance = Acceptance(client)
        models = Models(client, current, acceptance.is_accepting)
        backlog = Backlog(client, settings.queue_timeout_s, lambda: scripts.target_limits)
        storage, budgets = Storage(client, scripts, settings), RequestBudgets(current)
        dispatch = Dispatch(client, scripts, settings, backlog, storage, budgets)
        self.authenticator = Authenticator(settings, client)
        self._request_hooks = request_hooks
        link_revocations = LinkRevocations(client)
        live_grants = LiveGrants(self.authenticator.api_keys, link_revocations)
        desk_usage = DeskUsage(client)
        self.state = GatewayState(
            settings=settings,
            client=client,
            scripts=scripts,
            hub=hub,
            connections=Connections(settings.most_connections),
            body_memory=BodyMemory(settings.body_memory_bytes, settings.request_deadline_s),
            kept_inputs=KeptInputs(settings.websocket_memory_bytes),
            models=models,
            readiness=Readiness(watch, models, acceptance),
            dispatch=dispatch,
            request_hooks=request_hooks,
            tickets=Tickets(settings),
            authenticator=self.authenticator,
            live_grants=live_grants,
            link_revocations=link_revocations,
            backlog=backlog,
            overview=ExpiringCache(lambda _: read_overview(client, scripts.target_limits), fresh_s=_OVERVIEW_FRESH_S),
            archive=archive,
            usage=UsageOfAllTimes(desk_usage, _usage_in(archive), settings.usage_days),
            cost_today=ExpiringCache(lambda _: cost_today(desk_usage), fresh_s=_COST_FRESH_S),
        )
        lag, configurations = LoopLag(), ConfigurationWatch(client, scripts, configuration)
        current.follow(configurations.load)
        self._presence = Presence(
            client,
            gateway_id,
            "gateway",
            lambda: _load_of(hub, lag, configurations),
            reload.on_request,
            (settings.host, settings.port),
            settings.hooks,
        )
        sweep = Sweep(
            client,
            scripts,
            settings,
            own_id=gateway_id,
            requeue=dispatch.requeue,
            count=lambda reason: SWEPT.labels(reason).inc(),
        )
        loops = (
            hub.follow_tails(),
            hub.listen_for_growth(),
            hub.leases.keep(),
            hub.follow_queue_positions(),
            sweep.run(),
            live_grants.run(),
            backlog.run(),
            self._presence.run(),
            lag.run(),
            update_redis_metrics(client, settings.budgets),
            watch.run(),
            acceptance.run(),
            configurations.run(),
        )
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        for task in self._tasks:
            task.add_done_callback(_leave_if_broken)
        settle_garbage_collector()

    async def aclose(self) -> None:
        await cancel_all(self._tasks)
        await self._presence.leave()
        await self._request_hooks.aclose()
        await self._client.aclose()


def _load_of(hub: Hub, lag: LoopLag, configurations: ConfigurationWatch) -> Load:
    streams, readers = hub.load
    return Load(
        streams=streams,
        readers=readers,
        lag_s=lag.worst_s,
        draining=hub.draining,
        configuration=configurations.hash,
    )


def _leave_if_broken(task: asyncio.Task[None]) -> None:
    """Stop the process when a background task fails: without it, the gateway would accept requests and never
    deliver."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        return
    if isinstance(error, BrokerMisconfigured):
        logger.critical("broker unfit", extra={"reason": error.reason, "detail": error.detail})
        misconfigured.set()
    else:
        logger.critical("background task failed", exc_info=error)
    failed.set()
    os.kill(os.getpid(), signal.SIGTERM)
