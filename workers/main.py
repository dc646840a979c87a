"""One worker process, from start through drain to exit."""

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Mapping
from functools import partial

import uvloop

from shared.broker.client import Client, connect
from shared.broker.creation import requeue
from shared.broker.processes import Load, Presence
from shared.broker.recorded_reload import RecordedReload
from shared.broker.retention_fit import warn_if_small
from shared.broker.scripts import StreamScripts
from shared.broker.shared_configuration import ConfigurationWatch
from shared.broker.sweep import Sweep
from shared.broker.watch import BrokerWatch
from shared.cancellation import cancel_all
from shared.configuration.configuration import Configuration
from shared.configuration.current import CurrentConfiguration
from shared.errors import BrokerMisconfigured
from shared.exit_codes import CONFIGURATION_ERROR
from shared.file_descriptors import raise_limit
from shared.garbage import settle_garbage_collector
from shared.hangup import Hangup
from shared.hook_loading import close_hooks, load_hooks
from shared.logs import configure_logging
from shared.metrics import SWEPT, LoopLag
from shared.service_manager import READY, STOPPING, notify, signs_of_life
from shared.settings import SettingsError
from shared.tracing import Tracing
from shared.tracing_setup import configure_tracing
from shared.version import VERSION
from workers import metrics
from workers.archiving.opening import StartArchiving, open_for_worker
from workers.jobs.attempts import ProviderAttempts
from workers.jobs.current_adapters import CurrentAdapters
from workers.jobs.generate import Generation
from workers.jobs.model_publisher import publish_models
from workers.jobs.provider_limits import ProviderLimits
from workers.jobs.queue import StreamQueue
from workers.providers.base import Provider
from workers.providers.circuit_breakers import Breakers
from workers.providers.keys import Keys
from workers.webhooks.deliveries import Deliveries
from workers.writing.flusher import Flusher
from workers.writing.leases import Leases

logger = logging.getLogger(__name__)

_HANDOVER_S = 5.0
#: File descriptors that are not for streams: Redis, metrics, files, spare connections to providers.
_RESERVED_DESCRIPTORS = 128


def run(configuration: Configuration, hangup: Hangup) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends the process at once. Exits with 1 if it cannot serve,
    with 2 if a restart cannot help."""
    settings = configuration.settings
    configure_logging(settings.log_level, settings.log_format)
    try:
        tracing = configure_tracing(settings, "worker")
    except SettingsError as error:
        logger.critical("settings invalid", extra={"detail": str(error)})
        sys.exit(CONFIGURATION_ERROR)
    _check_descriptors(settings.concurrency)
    code = uvloop.run(_serve(configuration, tracing, hangup))
    tracing.close()
    sys.exit(code)


def _check_descriptors(slots: int) -> None:
    """Raise the limit of file descriptors, and log a warning if it is still too low: each stream takes one."""
    limit = raise_limit()
    if limit < slots + _RESERVED_DESCRIPTORS:
        detail = f"raise ulimit -n to {slots + _RESERVED_DESCRIPTORS}, or lower HEADRACE_CONCURRENCY"
        logger.warning("file descriptors scarce", extra={"limit": limit, "slots": slots, "detail": detail})


@signs_of_life()
async def _serve(configuration: Configuration, tracing: Tracing, hangup: Hangup) -> int:
    settings = configuration.settings
    stop = _stop_on_signals()
    client = connect(settings.redis_url, serves=True)
    watch = BrokerWatch(client)
    try:
        if not await wait_until_fit(stop, watch):
            return 0
        await warn_if_small(client, settings.retention_s)
        if settings.metrics_port:
            metrics.serve(settings.host, settings.metrics_port)
    except BrokerMisconfigured as error:
        return _refuse(error)
    except OSError as error:
        logger.critical(
            "cannot serve metrics",
            extra={
                "port": settings.metrics_port,
                "error": error.strerror,
                "detail": "set HEADRACE_METRICS_PORT to a free port",
            },
        )
        return 1
    try:
        async with open_for_worker(settings) as archiving:
            worker = _Worker(configuration, client, watch, tracing, hangup, archiving)
            try:
                return await worker.serve(stop)
            finally:
                await worker.close()
    except SettingsError as error:
        logger.critical("settings invalid", extra={"detail": str(error)})
        return CONFIGURATION_ERROR


class _Worker:
    """All parts of this process, wired together."""

    def __init__(
        self,
        configuration: Configuration,
        client: Client,
        watch: BrokerWatch,
        tracing: Tracing,
        hangup: Hangup,
        archiving: StartArchiving | None,
    ) -> None:
        settings = configuration.settings
        self._settings = settings
        self._client = client
        worker_id = f"w{secrets.token_hex(4)}"
        scripts = StreamScripts(settings)
        self._leases = Leases(client, scripts, settings, worker_id)
        self._hooks = load_hooks(settings)
        flusher = Flusher(client.servers, lambda: settings.tick_s(len(self._leases)))
        breakers = Breakers(client, settings)

        def attempts(providers: Mapping[str, Provider], keys: Keys, configuration: Configuration) -> ProviderAttempts:
            return ProviderAttempts(providers, breakers, keys, client, scripts, configuration)

        self._adapters = CurrentAdapters(client, configuration, attempts)
        self._configurations = ConfigurationWatch(client, scripts, configuration)
        current = CurrentConfiguration(configuration, self._adapters.replace)
        current.follow(self._configurations.load)
        reload = RecordedReload(client, current, "worker", worker_id)
        hangup.reload_with(reload.on_hangup)
        provider_limits = ProviderLimits(client, scripts)
        deliveries = Deliveries(client, scripts, settings)
        self._generation = generation = Generation(
            worker_id=worker_id,
            settings=settings,
            client=client,
            scripts=scripts,
            adapters=self._adapters,
            flusher=flusher,
            leases=self._leases,
            provider_limits=provider_limits,
            tracing=tracing,
            hooks=self._hooks,
            on_webhook=deliveries.wake,
        )
        queue_again = partial(requeue, client, scripts)
        sweep = Sweep(
            client,
            scripts,
            settings,
            own_id=worker_id,
            requeue=queue_again,
            count=lambda reason: SWEPT.labels(reason).inc(),
        )
        self._queue = StreamQueue(client.servers, settings, worker_id, generation.run, queue_again)
        self._taker = asyncio.create_task(self._queue.main())
        self._lag = LoopLag()
        self._presence = Presence(client, worker_id, "worker", self._load, reload.on_request, hooks=settings.hooks)
        published = asyncio.Event()
        publishing = publish_models(client, self._adapters, published)
        coroutines = (
            flusher.run(),
            self._leases.renew(),
            self._leases.listen(),
            sweep.run(),
            breakers.run(),
            self._adapters.run(),
            self._configurations.run(),
            provider_limits.run(),
            deliveries.run(),
            *([archiving(client, scripts).run()] if archiving is not None else []),
            publishing,
            self._appear(published),
            self._lag.run(),
            watch.run(),
        )
        self._background = [asyncio.create_task(coroutine) for coroutine in coroutines]
        settle_garbage_collector()
        metrics.SLOTS.set(settings.concurrency)
        logger.info(
            "worker started",
            extra={
                "worker": worker_id,
                "version": VERSION,
                "providers": ", ".join(self._adapters.providers),
                "slots": settings.concurrency,
            },
        )

    async def serve(self, stop: asyncio.Event) -> int:
        """Run until ``stop``, then drain. Returns 1 if a background task failed: a restart is safer than half a
        worker."""
        tasks = [self._taker, *self._background]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in tasks:
            if task.done():
                error = task.exception()
                if isinstance(error, BrokerMisconfigured):
                    return _refuse(error)
                logger.critical("background task failed", exc_info=error)
                return 1
        await self._drain()
        return 0

    async def close(self) -> None:
        await cancel_all([self._taker, *self._background, *self._queue.tasks.values()])
        await self._queue.close()
        await self._presence.leave()
        await self._adapters.aclose()
        if self._hooks is not None:
            await close_hooks(self._hooks, self._settings.hook_timeout_s)
        await self._client.aclose()

    async def _appear(self, published: asyncio.Event) -> None:
        """Report this worker once its models are known: until then a gateway cannot say that a model is unknown."""
        await published.wait()
        await self._presence.run()

    def _load(self) -> Load:
        """Return the load that this process publishes."""
        return Load(
            streams=len(self._leases),
            slots=self._settings.concurrency,
            lag_s=self._lag.worst_s,
            draining=not self._queue.allow_pick_jobs,
            configuration=self._configurations.hash,
        )

    async def _drain(self) -> None:
        """Take no new work, let running streams finish until the deadline, then hand over the rest."""
        notify(STOPPING)
        self._queue.quiet()
        self._generation.stop_counting()
        logger.info("draining", extra={"streams": len(self._queue.tasks), "drain_s": self._settings.drain_s})
        if not await self._is_empty_within(self._settings.drain_s):
            logger.info("handing over streams", extra={"streams": len(self._queue.tasks)})
            self._leases.hand_over()
            if not await self._is_empty_within(_HANDOVER_S):
                logger.warning("streams not handed over in time", extra={"streams": len(self._queue.tasks)})

    async def _is_empty_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._taker)
                await self._queue.drained()
        except TimeoutError:
            return False
        return True


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):  # a second signal has its default effect
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    return stop


async def wait_until_fit(stop: asyncio.Event, watch: BrokerWatch) -> bool:
    """Wait for Redis. Returns False if ``stop`` was set first. Raises :class:`BrokerMisconfigured`."""
    if await watch.check() is not None:
        settle_garbage_collector()  # the wait may take hours
    # The configuration is right. A start of the machine must not wait for Redis; the status says that it is away.
    notify(READY)
    return await watch.wait_until_fit(stop)


def _refuse(error: BrokerMisconfigured) -> int:
    """Log why this process cannot use Redis, and return its exit code."""
    logger.critical("broker unfit", extra={"reason": error.reason, "detail": error.detail})
    return CONFIGURATION_ERROR
