"""Watches Redis from every process: logs its troubles and its recovery, and exports them as a metric."""

import asyncio
import logging
from typing import Final

from shared.broker.client import Client
from shared.broker.cluster.fitness import fitness_of
from shared.broker.trouble import Reason
from shared.broker.trouble_log import TROUBLE
from shared.errors import BrokerFull, BrokerMisconfigured, BrokerUnavailable
from shared.metrics import REDIS_TROUBLE
from shared.polling import next_poll
from shared.service_manager import notify

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0


class BrokerWatch:
    """Checks Redis once a second. ``was_fit``: it has been usable since the start of this process."""

    def __init__(self, client: Client) -> None:
        self.was_fit = False
        self._fitness = fitness_of(client)
        self._warned = set[str]()
        self._reason = ""
        for reason in Reason:
            REDIS_TROUBLE.labels(reason)  # exported as 0 from the start

    async def run(self) -> None:
        """Run until cancelled. Raises :class:`BrokerMisconfigured` if waiting does not help a start."""
        while True:
            await self.check()
            await next_poll(_EVERY_S)

    async def wait_until_fit(self, stop: asyncio.Event) -> bool:
        """Wait for Redis. Returns False if ``stop`` was set first. Raises :class:`BrokerMisconfigured`."""
        while not stop.is_set():
            await self.check()
            if self.was_fit:
                return True
            try:
                await asyncio.wait_for(stop.wait(), _EVERY_S / 2)
            except TimeoutError:
                continue
        return False

    async def check(self) -> BrokerUnavailable | None:
        """Check once. Return the trouble, if any. A trouble of single nodes is only logged."""
        try:
            trouble_of_part = await self._fitness.check()
        except BrokerMisconfigured as error:
            if not self.was_fit:
                raise
            return self._note(error)
        except BrokerUnavailable as error:
            self.was_fit = self.was_fit or isinstance(error, BrokerFull)  # a full one serves what it has
            return self._note(error)
        self.was_fit = True
        for warning in set(self._fitness.warnings) - self._warned:
            logger.warning("outages will be worse than necessary", extra={"detail": warning})
            self._warned.add(warning)
        if trouble_of_part is not None:
            self._note(trouble_of_part)
            return None
        TROUBLE.recovered()
        self._export("", "")
        return None

    def _note(self, error: BrokerUnavailable) -> BrokerUnavailable:
        TROUBLE.report(error)
        self._export(error.reason, error.detail)
        return error

    def _export(self, reason: str, detail: str) -> None:
        if self._reason and reason != self._reason:
            REDIS_TROUBLE.labels(self._reason).set(0)
        if reason != self._reason:
            notify(f"STATUS={detail or 'Redis is usable again'}")
        if reason:
            REDIS_TROUBLE.labels(reason).set(1)
        self._reason = reason
