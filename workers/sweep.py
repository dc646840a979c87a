"""The periodic look for streams that nobody holds: a job lost on its way, a worker that died.

One worker at a time sweeps, every second. It only puts ids back into the queue; who claims one decides what to do.
"""

import asyncio
import logging

from shared.broker.client import TROUBLE, Client
from shared.broker.keys import SWEEP, index_keys
from shared.errors import Unavailable
from shared.settings import Settings
from workers.queue import requeue

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_TURN_MS = 3000
_MOST_PER_BUCKET = 100


class Sweep:
    def __init__(self, client: Client, settings: Settings, worker_id: str) -> None:
        self._client = client
        self._settings = settings
        self._worker_id = worker_id.encode()
        self._index_keys = index_keys()

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                if await self._is_my_turn():
                    await self._sweep()
            except (*TROUBLE, Unavailable) as error:
                logger.debug("no sweep: %s", type(error).__name__)

    async def _is_my_turn(self) -> bool:
        if await self._client.set(SWEEP, self._worker_id, nx=True, px=_TURN_MS):
            return True
        if await self._client.get(SWEEP) != self._worker_id:
            return False
        return bool(await self._client.pexpire(SWEEP, _TURN_MS))

    async def _sweep(self) -> None:
        now_ms = await self._redis_time_ms()
        async with self._client.pipeline(transaction=False) as pipe:
            for key in self._index_keys:
                pipe.zrangebyscore(key, "-inf", now_ms, start=0, num=_MOST_PER_BUCKET)
            due = await pipe.execute()
        for key, stream_ids in zip(self._index_keys, due, strict=True):
            for stream_id in stream_ids:
                await self._put_back(key, stream_id.decode(), now_ms)

    async def _put_back(self, index_key: str, stream_id: str, now_ms: int) -> None:
        added = await requeue(self._client, stream_id, now_ms=now_ms, life_s=self._settings.retention_s)
        next_look = now_ms + round(self._settings.lease_s * 1000)
        await self._client.zadd(index_key, {stream_id: next_look}, xx=True)
        if added:
            logger.info("stream %s was put back into the queue", stream_id)

    async def _redis_time_ms(self) -> int:
        seconds, microseconds = await self._client.time()
        return int(seconds * 1000 + microseconds // 1000)
