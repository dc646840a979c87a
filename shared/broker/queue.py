"""Queue positions, and re-queueing of a stream that lost its job; ``create.lua`` queues new streams.

The queue's consumer is ``workers/jobs/queue.py``; no other module imports arq.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec
from arq.jobs import serialize_job

from shared.broker import scripts
from shared.broker.client import Client, run_commands, run_script
from shared.broker.keys import QUEUE, provider_limit_keys

#: arq's name of the only kind of job.
JOB: Final = "generate"


def job_of(stream_id: str) -> bytes:
    """Serialize a stream's job in arq's format."""
    return serialize_job(JOB, (stream_id,), {}, None, time.time_ns() // 1_000_000, serializer=msgspec.json.encode)


async def queue_positions(client: Client, stream_ids: Sequence[str], limited: Iterable[str]) -> list[int | None]:
    """Return each stream's position, 1 for the next, in the queue or among those parked for a provider; None if a
    worker has taken it. ``limited``: providers with limits. Raises :class:`BrokerUnavailable`."""
    keys = [QUEUE, *(provider_limit_keys(provider)[1] for provider in limited)]
    ranks = iter(await run_commands(client, [("ZRANK", key, stream_id) for stream_id in stream_ids for key in keys]))
    found = ([rank for rank in islice(ranks, len(keys)) if rank is not None] for _ in stream_ids)
    return [min(ranks_of_one) + 1 if ranks_of_one else None for ranks_of_one in found]


async def requeue(client: Client, stream_id: str, *, life_s: float) -> bool:
    """Queue a stream again that lost its job. Return False if it is queued already; it keeps its position. Repeating
    is safe: a job for a stream that is held ends without effect. Raises :class:`BrokerUnavailable`."""
    return await run_script(client, scripts.requeue(stream_id, job_of(stream_id), life_s=life_s))
