"""One worker process: start, serve, drain, leave."""

import asyncio
import logging
import secrets
import signal
import sys
from contextlib import suppress
from functools import partial

import uvloop

from shared.broker.client import BrokerUnfit, Client, check_fitness, connect
from shared.broker.pipeline_connection import PipelineConnection
from shared.broker.processes import Load, Presence
from shared.broker.queue import enqueue
from shared.broker.scripts import StreamScripts
from shared.broker.sweep import Sweep
from shared.cancellation import cancel_all
from shared.errors import BrokerUnavailable
from shared.garbage import settle_garbage_collector
from shared.logs import configure_logging
from shared.metrics import SWEPT, LoopLag
from shared.settings import Settings, SettingsError
from shared.tracing import Tracing, tracing_of
from shared.version import VERSION
from workers import metrics
from workers.jobs.attempts import ProviderAttempts
from workers.jobs.generate import Generation
from workers.jobs.provider_limits import ProviderLimits
from workers.jobs.queue import StreamQueue
from workers.providers.circuit_breakers import Breakers
from workers.providers.model_publisher import publish_models
from workers.providers.registry import configured_providers
from workers.writing.flusher import Flusher
from workers.writing.leases import Leases

logger = logging.getLogger(__name__)

_HANDOVER_S = 5.0


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; a second one leaves at once. Exits with 1 where it cannot serve."""
    configure_logging(settings.log_level, settings.log_format)
    try:
        tracing = tracing_of(settings, "worker")
    except SettingsError as error:
        logger.critical("%s", error)
        sys.exit(1)
    code = uvloop.run(_serve(settings, tracing))
    tracing.close()
    sys.exit(code)


async def _serve(settings: Settings, tracing: Tracing) -> int:
    stop = _stop_on_signals()
    client = connect(settings.redis_url)
    try:
        if not await is_fit_before(stop, client):
            return 0
        if settings.metrics_port:
            metrics.serve(settings.host, settings.metrics_port)
    except BrokerUnfit as error:
        logger.critical("%s", error.message)
        return 1
    except OSError as error:
        logger.critical("cannot serve metrics on port %d: %s", settings.metrics_port, error.strerror)
        return 1
    worker = _Worker(settings, client, tracing)
    try:
        return await worker.serve(stop)
    finally:
        await worker.close()


class _Worker:
    """The parts of this process, put together."""

    def __init__(self, settings: Settings, client: Client, tracing: Tracing) -> None:
        self._settings = settings
        self._client = client
        worker_id = f"w{secrets.token_hex(4)}"
        scripts = StreamScripts(settings)
        self._providers = configured_providers(settings)
        # A renewal that gets no answer must be tried again before the lease is over.
        writing, sweeping = PipelineConnection(settings.redis_url), PipelineConnection(settings.redis_url)
        renewing = PipelineConnection(settings.redis_url, timeout_s=min(5, max(0.5, settings.lease_s / 4)))
        self._lines = [writing, renewing, sweeping]
        self._leases = Leases(renewing, scripts, settings, worker_id)
        flusher = Flusher(writing, lambda: settings.tick_s(len(self._leases)))
        breakers = Breakers(client, self._providers, settings)
        lanes = ProviderLimits(client, settings)
        generation = Generation(
            worker_id=worker_id,
            settings=settings,
            client=client,
            scripts=scripts,
            asking=ProviderAttempts(self._providers, breakers, client, scripts, settings),
            flusher=flusher,
            leases=self._leases,
            lanes=lanes,
            tracing=tracing,
        )
        requeue = partial(enqueue, client, life_s=settings.unended_s)
        sweep = Sweep(
            client,
            sweeping,
            scripts,
            settings,
            own_id=worker_id,
            requeue=requeue,
            count=lambda reason: SWEPT.labels(reason).inc(),
        )
        self._queue = StreamQueue(settings, worker_id, generation.run, requeue)
        self._taking = asyncio.create_task(self._queue.main())
        self._lag = LoopLag()
        self._presence = Presence(client, worker_id, "worker", self._load)
        offering = publish_models(client, self._providers.values())
        works = (
            flusher.run(),
            self._leases.renew(),
            self._leases.listen(),
            sweep.run(),
            breakers.run(),
            lanes.run(),
            offering,
            self._presence.run(),
            self._lag.run(),
        )
        self._background = [asyncio.create_task(work) for work in works]
        settle_garbage_collector()
        metrics.SLOTS.set(settings.concurrency)
        logger.info(
            "worker started",
            extra={
                "worker": worker_id,
                "version": VERSION,
                "providers": ", ".join(self._providers),
                "slots": settings.concurrency,
            },
        )

    async def serve(self, stop: asyncio.Event) -> int:
        """Until ``stop``, and then the drain. 1 where a part broke: rather leave, and be restarted."""
        tasks = [self._taking, *self._background]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in tasks:
            if task.done():
                logger.critical("a part of this worker broke", exc_info=task.exception())
                return 1
        await self._drain()
        return 0

    async def close(self) -> None:
        await cancel_all([self._taking, *self._background, *self._queue.tasks.values()])
        await self._presence.leave()
        for provider in self._providers.values():
            await provider.aclose()
        for line in self._lines:
            await line.aclose()
        await self._client.aclose()

    def _load(self) -> Load:
        """What others see of this process."""
        return Load(
            streams=len(self._leases),
            slots=self._settings.concurrency,
            lag_s=self._lag.worst_s,
            draining=not self._queue.allow_pick_jobs,
        )

    async def _drain(self) -> None:
        """Take nothing new, finish what runs until the deadline, hand the rest over."""
        self._queue.quiet()
        logger.info("draining: %d streams have %g s", len(self._queue.tasks), self._settings.drain_s)
        if not await self._is_empty_within(self._settings.drain_s):
            logger.info("handing over %d streams", len(self._queue.tasks))
            self._leases.hand_over()
            if not await self._is_empty_within(_HANDOVER_S):
                logger.warning("%d streams are left to their leases", len(self._queue.tasks))

    async def _is_empty_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._taking)
                await self._queue.drained()
        except TimeoutError:
            return False
        return True


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one is not ours to catch
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    return stop


async def is_fit_before(stop: asyncio.Event, client: Client) -> bool:
    """Waits for Redis. False where it was told to leave meanwhile. Raises :class:`BrokerUnfit`."""
    told = False
    while not stop.is_set():
        try:
            await check_fitness(client)
        except BrokerUnavailable:
            if not told:
                logger.warning("waiting for Redis")
                settle_garbage_collector()  # it may take hours
            told = True
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)
        else:
            return True
    return False
