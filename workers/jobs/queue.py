"""The far end of the queue, where ids are taken off it. The near end is ``shared/broker/queue.py``.

arq carries ids and nothing else: what a stream is and who holds it stands in its state. So an id is taken off the
queue for good (``BZPOPMIN``: one blocking round trip, no polling, no scan over what runs elsewhere), and the sweep
puts back what was lost between here and the claim. Why not arq's own polling: docs/adr/0002.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from arq.connections import ArqRedis
from arq.constants import retry_key_prefix
from arq.worker import Worker, func

from shared.broker.client import REDIS_ERRORS
from shared.broker.connection_pool import pool_of
from shared.broker.keys import QUEUE
from shared.broker.queue import JOB
from shared.errors import BrokerUnavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

_BLOCK_S = 1.0
_MOST_AT_ONCE = 16
#: arq must not count attempts, nor kill a long answer: both are the stream's own business.
_NO_LIMIT = 1_000_000


class StreamQueue(Worker):
    """An arq worker that takes ids the moment they come. ``generate`` is called with a stream id; ``requeue`` with
    one that came too late."""

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
        self._put_back = requeue
        self._slot_freed = asyncio.Event()
        self._again = set[str]()  # taken once more while their jobs were under way here

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
                    else:  # told to leave while the read was blocked
                        await self._put_back(stream_id)
            except (*REDIS_ERRORS, BrokerUnavailable) as error:
                logger.debug("the queue is out of reach: %s", type(error).__name__)
                await asyncio.sleep(0.2)

    def quiet(self) -> None:
        """Take nothing new. :meth:`main` returns within a second."""
        self.allow_pick_jobs = False
        self._slot_freed.set()

    async def drained(self) -> None:
        """Wait until nothing runs."""
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))

    async def finish_job(self, job_id: str, *_: Any, **__: Any) -> None:
        """arq would take the id off the queue, and the job away: both may be there anew by now, for a stream that was
        parked or handed over. The scripts that end a stream take them away."""
        await self.pool.delete(retry_key_prefix + job_id)

    async def finish_failed_job(self, job_id: str, *_: Any, **__: Any) -> None:
        """The same where there was no job."""
        await self.finish_job(job_id)

    async def _take(self) -> list[str]:
        """Ids to start, at least one unless a second goes by without any."""
        first = await self.pool.bzpopmin(QUEUE, timeout=_BLOCK_S)
        if first is None:
            return []
        taken = [first[1].decode()]
        more = min(self.free_slots, _MOST_AT_ONCE) - 1
        if more > 0:
            taken += [member.decode() for member, _ in await self.pool.zpopmin(QUEUE, more)]
        return taken

    def _start(self, stream_id: str) -> None:
        if stream_id in self.tasks:
            self._again.add(stream_id)
            return
        task = self.loop.create_task(self.run_job(stream_id, 0))
        self.tasks[stream_id] = task
        task.add_done_callback(lambda done: self._settle(stream_id, done))

    def _settle(self, stream_id: str, task: asyncio.Task[Any]) -> None:
        del self.tasks[stream_id]
        if stream_id in self._again:
            self._again.remove(stream_id)
            if self.allow_pick_jobs and not task.cancelled():  # else the sweep finds it
                self._start(stream_id)
        self._slot_freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("job of stream %s broke: %s", stream_id, type(error).__name__)
