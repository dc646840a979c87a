"""Consumer side of the queue. The producer side is ``shared/broker/queue.py``.

arq carries only ids; a stream's data and holder are in its state. So an id is removed from the queue at once
(``BZPOPMIN``: one blocking round trip, no polling, no scan over jobs that run elsewhere), and the sweep re-queues
ids that were lost between here and the claim. docs/adr/0002 says why arq's own polling is not used.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from arq.connections import ArqRedis
from arq.constants import retry_key_prefix
from arq.worker import Worker, func
from redis.exceptions import ResponseError

from shared.broker.client import REDIS_ERRORS, refused
from shared.broker.connection_pool import pool_of
from shared.broker.keys import QUEUE
from shared.broker.queue import JOB
from shared.broker.redis_address import safe_address
from shared.errors import BrokerUnavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

_BLOCK_S = 1.0
_MAX_BATCH = 16
#: arq must not count attempts or kill long answers: the stream's state and deadline do that.
_NO_LIMIT = 1_000_000


class StreamQueue(Worker):
    """An arq worker that takes ids without polling. ``generate`` is called with each stream id; ``requeue`` with an
    id that arrived after :meth:`quiet`."""

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        generate: Callable[[str], Awaitable[None]],
        requeue: Callable[[str], Awaitable[bool]],
    ) -> None:
        async def job(ctx: dict[Any, Any], stream_id: str) -> None:
            await generate(stream_id)

        redis = ArqRedis(
            connection_pool=pool_of(settings.redis_url, timeout_s=5, connections=32),
            job_serializer=msgspec.json.encode,
            job_deserializer=msgspec.json.decode,
            default_queue_name=QUEUE,
        )
        super().__init__(
            functions=[func(job, name=JOB, max_tries=_NO_LIMIT)],
            queue_name=QUEUE,
            redis_pool=redis,
            handle_signals=False,
            max_jobs=settings.concurrency,
            job_timeout=_NO_LIMIT,
            keep_result=0,
            health_check_interval=30,
            health_check_key=f"{QUEUE}:health:{worker_id}",
            job_serializer=msgspec.json.encode,
            job_deserializer=msgspec.json.decode,
            log_results=False,
        )
        self._target = safe_address(settings.redis_url)
        self._requeue = requeue
        self._slot_freed = asyncio.Event()
        self._repeated = set[str]()  # ids taken a second time while their jobs still ran here

    @property
    def free_slots(self) -> int:
        return self.max_jobs - len(self.tasks)

    async def main(self) -> None:
        """Take and start jobs until :meth:`quiet`."""
        while self.allow_pick_jobs:
            try:
                await self.heart_beat()
                if self.free_slots <= 0:
                    self._slot_freed.clear()
                    await self._slot_freed.wait()
                for stream_id in await self._take():
                    if self.allow_pick_jobs:
                        self._start(stream_id)
                    else:  # quiet() was called while the read was blocked
                        await self._requeue(stream_id)
            except (*REDIS_ERRORS, BrokerUnavailable) as error:
                if isinstance(error, ResponseError):
                    refused(error, self._target, "BZPOPMIN")
                logger.debug("queue unavailable", extra={"error": type(error).__name__})
                await asyncio.sleep(0.2)

    def quiet(self) -> None:
        """Take no new work. :meth:`main` returns within a second."""
        self.allow_pick_jobs = False
        self._slot_freed.set()

    async def drained(self) -> None:
        """Wait until no job runs."""
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))

    async def finish_job(self, job_id: str, *_: Any, **__: Any) -> None:
        """Delete arq's retry counter alone. arq would also remove the id and the job, but a stream that was parked or
        handed over may have new ones by now. The scripts that end a stream remove them."""
        await self.pool.delete(retry_key_prefix + job_id)

    async def finish_failed_job(self, job_id: str, *_: Any, **__: Any) -> None:
        """Delete arq's retry counter; arq calls this if the job's data is missing."""
        await self.finish_job(job_id)

    async def _take(self) -> list[str]:
        """Return ids to start, or none after one second without any."""
        first = await self.pool.bzpopmin(QUEUE, timeout=_BLOCK_S)
        if first is None:
            return []
        taken = [first[1].decode()]
        more = min(self.free_slots, _MAX_BATCH) - 1
        if more > 0:
            taken += [member.decode() for member, _ in await self.pool.zpopmin(QUEUE, more)]
        return taken

    def _start(self, stream_id: str) -> None:
        if stream_id in self.tasks:
            self._repeated.add(stream_id)
            return
        task = self.loop.create_task(self.run_job(stream_id, 0))
        self.tasks[stream_id] = task
        task.add_done_callback(lambda done: self._settle(stream_id, done))

    def _settle(self, stream_id: str, task: asyncio.Task[Any]) -> None:
        del self.tasks[stream_id]
        if stream_id in self._repeated:
            self._repeated.remove(stream_id)
            if self.allow_pick_jobs and not task.cancelled():  # otherwise the sweep finds it
                self._start(stream_id)
        self._slot_freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("job failed", extra={"stream_id": stream_id, "error": type(error).__name__})
