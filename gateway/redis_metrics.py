"""Memory use and counts of streams and webhooks in Redis, for ``/metrics``."""

import logging
from typing import Final

from gateway import metrics
from shared.broker.client import Client
from shared.broker.deliveries import count_owed
from shared.broker.memory_stats import read_memory
from shared.errors import BrokerUnavailable
from shared.polling import next_poll

logger = logging.getLogger(__name__)

_READ_EVERY_S: Final = 10.0


async def update_redis_metrics(client: Client) -> None:
    """Run until cancelled: read the figures from Redis every 10 seconds."""
    while True:
        try:
            memory = await read_memory(client)
            waiting, given_up = await count_owed(client)
        except BrokerUnavailable:
            logger.debug("Redis memory statistics unavailable")
        else:
            metrics.REDIS_MEMORY.set(memory.used)
            metrics.REDIS_MEMORY_LIMIT.set(memory.limit)
            metrics.LIVE_STREAMS.set(memory.live)
            metrics.WEBHOOKS_WAITING.set(waiting)
            metrics.WEBHOOKS_GIVEN_UP.set(given_up)
            if memory.stream:
                metrics.STREAM_BYTES.set(memory.stream)
        await next_poll(_READ_EVERY_S)
