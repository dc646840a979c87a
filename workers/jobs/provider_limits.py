"""Room at providers that may have only so many streams at once: who was parked for want of it is queued again."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from shared.broker import scripts
from shared.broker.client import Client, run_script
from shared.broker.queue import enqueue
from shared.errors import BrokerUnavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

#: Room may come from elsewhere: from a worker that died, or whose last word was lost.
_LOOK_EVERY_S: Final = 1.0


class ProviderLimits:
    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._most = settings.provider_streams
        self._life_s = settings.unended_s
        self._freed = asyncio.Event()

    def freed(self) -> None:
        """A stream of this worker has ended."""
        self._freed.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._freed.wait()
            self._freed.clear()
            try:
                await self._unpark()
            except BrokerUnavailable:
                logger.debug("nothing is unparked: Redis is out of reach")

    async def _unpark(self) -> None:
        for provider, most in self._most.items():
            for stream_id in await run_script(self._client, scripts.unpark(provider, most)):
                await enqueue(self._client, stream_id, life_s=self._life_s)
