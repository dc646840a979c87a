"""Re-queues streams parked for providers at a limit; claim.lua and take_slot.lua enforce the limits."""

import asyncio
import logging
from typing import Final

from shared.broker.client import Client, run_scripts
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.polling import next_poll

logger = logging.getLogger(__name__)

#: A slot can also free elsewhere: a worker died, a minute passed, or a notification was lost.
_POLL_S: Final = 1.0


class ProviderLimits:
    def __init__(self, client: Client, scripts: StreamScripts) -> None:
        self._client = client
        self._scripts = scripts
        self._slot_freed = asyncio.Event()

    def slot_freed(self) -> None:
        """Note that a stream of this worker has ended."""
        self._slot_freed.set()

    async def run(self) -> None:
        """Run until cancelled: re-queue parked streams after each freed slot, and every second."""
        polling = asyncio.create_task(self._poll())
        try:
            while True:
                await self._slot_freed.wait()
                self._slot_freed.clear()
                try:
                    await self._unpark()
                except BrokerUnavailable:
                    logger.debug("parked streams not re-queued", extra={"error": "Redis unavailable"})
        finally:
            polling.cancel()

    async def _poll(self) -> None:
        while True:
            await next_poll(_POLL_S)
            self._slot_freed.set()

    async def _unpark(self) -> None:
        limits = self._scripts.target_limits
        calls = [self._scripts.desk.unpark(provider, each) for provider, each in limits.items()]
        if not calls:
            return
        for stream_ids in await run_scripts(self._client, calls):
            if isinstance(stream_ids, BrokerUnavailable):
                raise stream_ids
