"""The near end of the queue: how an id gets into it. The far end is ``workers/queue.py``; only these two know arq."""

import time
from typing import Final

import msgspec
from arq.jobs import serialize_job

from shared.broker import scripts
from shared.broker.client import Client, run

#: What arq calls the work that there is.
JOB: Final = "generate"


def job_of(stream_id: str) -> bytes:
    """As arq reads it."""
    return serialize_job(JOB, (stream_id,), {}, None, time.time_ns() // 1_000_000, serializer=msgspec.json.encode)


async def enqueue(client: Client, stream_id: str, *, life_s: float) -> bool:
    """Queue a stream that lost its job. False where the id waits already; it keeps its place. Again does no harm: a
    job for a stream that is held ends quietly. Raises :class:`BrokerUnavailable`."""
    return await run(client, scripts.enqueue(stream_id, job_of(stream_id), life_s=life_s))
