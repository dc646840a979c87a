"""Re-queues streams parked at a provider's concurrency limit when a slot frees. claim.lua enforces the limit."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from shared.broker import scripts
from shared.broker.client import Client, run_script
from shared.broker.queue import requeue
from shared.errors import BrokerUnavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: A slot can also free elsewhere: a worker died, or its notification was lost.
_POLL_S: Final = 1.0


class ProviderLimits:
    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._limits = settings.provider_streams
        self._life_s = settings.unended_s
        self._slot_freed = asyncio.Event()

    def slot_freed(self) -> None:
        """Note that a stream of this worker has ended."""
        self._slot_freed.set()

    async def run(self) -> None:
        """Run until cancelled: re-queue parked streams after each freed slot, and every second."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._slot_freed.wait()
            self._slot_freed.clear()
            try:
                await self._unpark()
            except BrokerUnavailable:
                logger.debug("parked streams not re-queued", extra={"error": "Redis unavailable"})

    async def _unpark(self) -> None:
        for provider, limit in self._limits.items():
            for stream_id in await run_script(self._client, scripts.unpark(provider, limit)):
                await requeue(self._client, stream_id, life_s=self._life_s)
