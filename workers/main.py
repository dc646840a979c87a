"""One worker process: start, serve, drain, leave."""

import asyncio
import logging
import secrets
import signal
import sys

import uvloop

from shared.broker.catalog import Shelf, publish
from shared.broker.client import BrokerUnfit, Client, check_fitness, connect
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.logs import configure_logging
from shared.settings import Settings
from workers.flusher import Flusher
from workers.generate import Generation
from workers.leases import Leases
from workers.providers.base import Provider
from workers.providers.registry import configured_providers
from workers.queue import StreamQueue
from workers.sweep import Sweep

logger = logging.getLogger(__name__)

_OFFER_EVERY_S = 60.0


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; a second one leaves at once. Exits with 1 where it cannot serve."""
    configure_logging(settings.log_level)
    sys.exit(uvloop.run(_serve(settings)))


async def _serve(settings: Settings) -> int:
    stop = _stop_on_signals()
    worker_id = f"w{secrets.token_hex(4)}"
    client = connect(settings.redis_url)
    try:
        await _wait_until_fit(client)
    except BrokerUnfit as error:
        logger.error("%s", error.message)  # noqa: TRY400
        return 1
    scripts = StreamScripts(settings)
    providers = configured_providers(settings)
    flusher = Flusher(client)
    leases = Leases(client, scripts, settings, worker_id)
    generation = Generation(
        worker_id=worker_id,
        settings=settings,
        client=client,
        scripts=scripts,
        providers=providers,
        flusher=flusher,
        leases=leases,
    )
    queue = StreamQueue(settings, worker_id, generation.run)
    taking = asyncio.create_task(queue.main())
    background = [
        asyncio.create_task(work)
        for work in (
            flusher.run(),
            leases.renew(),
            leases.listen(),
            Sweep(client, settings, worker_id).run(),
            *(_offer(client, provider) for provider in providers.values()),
        )
    ]
    logger.info("worker %s serves %s, %d slots", worker_id, ", ".join(providers), settings.concurrency)

    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([stopping, taking, *background], return_when=asyncio.FIRST_COMPLETED)
    failed = next((task for task in [taking, *background] if task.done()), None)
    if failed is None:
        await _drain(queue, taking, settings.drain_s)
    else:
        logger.critical("worker %s cannot go on", worker_id, exc_info=failed.exception())
    for task in [taking, stopping, *background, *queue.tasks.values()]:
        task.cancel()
    for provider in providers.values():
        await provider.aclose()
    await client.aclose()
    return 0 if failed is None else 1


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heed() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one is not ours to catch
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heed)
    return stop


async def _wait_until_fit(client: Client) -> None:
    """Raises :class:`BrokerUnfit`."""
    told = False
    while True:
        try:
            await check_fitness(client)
        except BrokerUnavailable:
            if not told:
                logger.warning("waiting for Redis")
            told = True
            await asyncio.sleep(0.5)
        else:
            return


async def _drain(queue: StreamQueue, taking: asyncio.Task[None], deadline_s: float) -> None:
    """Take nothing new, finish what runs, by the deadline."""
    queue.quiet()
    logger.info("draining: %d streams have %g s", len(queue.tasks), deadline_s)
    try:
        async with asyncio.timeout(deadline_s):
            await taking
            await queue.drained()
    except TimeoutError:
        logger.warning("%d streams did not end in time", len(queue.tasks))


async def _offer(client: Client, provider: Provider) -> None:
    """For ever: tell the gateways what this provider has."""
    while True:
        offer = await provider.offer()
        try:
            await publish(client, provider.name, Shelf(offer.models, offer.open))
        except BrokerUnavailable:
            await asyncio.sleep(1)
        else:
            await asyncio.sleep(_OFFER_EVERY_S)
