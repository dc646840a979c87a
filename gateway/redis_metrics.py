"""Memory use, counts of streams and webhooks, and the server's budgets in Redis, for ``/metrics``."""

import logging
from typing import Final

from gateway import metrics
from shared.broker.budgets import BudgetUse, read_budget_uses
from shared.broker.client import Client
from shared.broker.deliveries import count_owed
from shared.broker.memory_stats import read_memory
from shared.budgets import NO_BUDGETS, SERVER, Budgets
from shared.errors import BrokerUnavailable
from shared.polling import next_poll
from shared.protocol.ledger import NANOS

logger = logging.getLogger(__name__)

_READ_EVERY_S: Final = 10.0


async def update_redis_metrics(client: Client, budgets: Budgets = NO_BUDGETS) -> None:
    """Run until cancelled: read the figures from Redis every 10 seconds. ``budgets``: of the server."""
    while True:
        try:
            memory = await read_memory(client)
            uses = (await read_budget_uses(client, {SERVER: budgets}))[SERVER]
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
            for use in uses:
                _show_budget(use)
        await next_poll(_READ_EVERY_S)


def _show_budget(use: BudgetUse) -> None:
    unit, kind = (NANOS, "money") if use.kind == "nanos" else (1, "tokens")
    for gauge, amount in (
        (metrics.BUDGET_LIMIT, use.limit),
        (metrics.BUDGET_USED, use.used),
        (metrics.BUDGET_RESERVED, use.reserved),
    ):
        gauge.labels(use.period, kind, use.currency).set(amount / unit)
