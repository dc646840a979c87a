"""Consumer side of the queue. The producer side is ``shared/broker/queue.py``.

arq carries only ids; a stream's data and holder are in its state. So an id is removed from the queue at once
(``BZPOPMIN``: one blocking exchange, no polling, no scan over jobs that run elsewhere), and the sweep re-queues
ids that were lost between here and the claim. docs/adr/0002 says why arq's own polling is not used.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.exceptions import ResponseError

from shared.broker.client import REDIS_ERRORS, refused
from shared.broker.cluster.owner import OwnerConnection, owner_pool
from shared.broker.cluster.servers import Servers
from shared.broker.keys import QUEUE, stream_of_job
from shared.broker.pipeline_connection import Command
from shared.broker.queue import JOB
from shared.errors import BrokerUnavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

_BLOCK_S: Final = 1.0
_LONGEST_TIMEOUT_S: Final = 5.0
_MAX_BATCH: Final = 16
#: Turn of the event loop from which this process is overloaded, and how long it then waits before the next job.
_SLOW_TURN_S: Final = 0.1
_LONGEST_WAIT_S: Final = 0.25
#: arq must not count attempts or kill long answers: the stream's state and deadline do that.
_NO_LIMIT: Final = 1_000_000


class StreamQueue(Worker):
    """An arq worker that takes ids without polling. ``generate`` is called with each stream id; ``requeue`` with an
    id that arrived after :meth:`quiet`."""

    def __init__(
        self,
        servers: Servers,
        settings: Settings,
        worker_id: str,
        generate: Callable[[str], Awaitable[None]],
        requeue: Callable[[str], Awaitable[bool]],
    ) -> None:
        async def job(ctx: dict[Any, Any], stream_id: str) -> None:
            await generate(stream_id)

        redis = ArqRedis(  # arq writes its health record with it, every 30 s
            connection_pool=owner_pool(servers, QUEUE, timeout_s=5, connections=1), default_queue_name=QUEUE
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
        self._connection = OwnerConnection(
            servers, QUEUE, timeout_s=min(_LONGEST_TIMEOUT_S, _BLOCK_S + servers.loop_timeout_s)
        )
        self._generate = generate
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
                await self.record_health()
                if self.free_slots <= 0:
                    self._slot_freed.clear()
                    await self._slot_freed.wait()
                for stream_id in await self._take(await self._next_batch()):
                    if self.allow_pick_jobs:
                        self._start(stream_id)
                    else:  # quiet() was called while the read was blocked
                        await self._requeue(stream_id)
                await asyncio.sleep(0)  # one turn more than _next_batch takes: claims are sent before the next take
            except (*REDIS_ERRORS, BrokerUnavailable) as error:
                if isinstance(error, ResponseError):
                    refused(error, self._connection.target, "BZPOPMIN")
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

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._connection.aclose()
        await self.pool.aclose(close_connection_pool=True)

    async def run_job(self, job_id: str, score: int) -> None:
        """Run one job. arq's own method would first read the job and count its tries in Redis, and delete the count
        afterwards: three more commands, with results that are not needed (rule E9)."""
        await self._generate(job_id)
        self.jobs_complete += 1

    async def _next_batch(self) -> int:
        """Return the most jobs to take. While the event loop is slow, wait a moment and take only one, so that other
        workers get the rest."""
        most = min(self.free_slots, _MAX_BATCH)
        waits_until = time.monotonic() + _LONGEST_WAIT_S
        while self.tasks and await _turn_s() > _SLOW_TURN_S:
            if time.monotonic() >= waits_until:
                return min(most, 1)
        return most

    async def _take(self, most: int) -> list[str]:
        """Return ids to start, or none after one second without any. Redis answers the second command at once after
        the first, so both take one exchange."""
        commands: list[Command] = [("BZPOPMIN", QUEUE, _BLOCK_S)]
        if most > 1:
            commands.append(("ZPOPMIN", QUEUE, most - 1))
        replies = await self._connection.exchange(commands)
        taken: list[bytes] = []
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        first, *more = replies
        if first is not None:
            taken.append(first[1])
        for reply in more:
            taken += reply[::2]
        return [stream_of_job(job_id.decode()) for job_id in taken]

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
            self.jobs_failed += 1
            logger.warning("job failed", extra={"stream_id": stream_id, "error": type(error).__name__})


async def _turn_s() -> float:
    """Return how long a turn of the event loop takes now."""
    begun = time.monotonic()
    await asyncio.sleep(0)
    return time.monotonic() - begun
