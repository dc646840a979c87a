"""The near end of the queue: how an id gets into it. The far end is ``workers/queue.py``; only these two know arq."""

import time
from typing import Final

import msgspec
from arq.constants import job_key_prefix
from arq.jobs import serialize_job

from shared.broker import scripts
from shared.broker.client import Client, run

#: What arq calls the work that there is.
JOB: Final = "generate"


async def enqueue(client: Client, stream_id: str, *, life_s: float) -> bool:
    """False where the id waits already; it keeps its place. Again does no harm: a job for a stream that is held ends
    quietly. Raises :class:`BrokerUnavailable`."""
    now_ms = time.time_ns() // 1_000_000
    job = serialize_job(JOB, (stream_id,), {}, None, now_ms, serializer=msgspec.json.encode)
    call = scripts.enqueue(stream_id, job, job_key=job_key_prefix + stream_id, score=now_ms, life_s=life_s)
    return await run(client, call)
