"""Jobs in arq's format, and queue positions. ``admit.lua`` queues new streams.

The queue's consumer is ``workers/jobs/queue.py``; no other module imports arq.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec
from arq.jobs import serialize_job

from shared.broker.client import Client, run_commands
from shared.broker.keys import QUEUE, job_id_of, provider_limit_keys
from shared.broker.pipeline_connection import Command

#: arq's name of the only kind of job.
JOB: Final = "generate"
#: Turns of batch streams begin here, and a round has so many (``_classes.lua``).
_BATCH, _ROUND = 1 << 56, 1 << 32
#: Counts the batch streams in the queue, by their turns (``_classes.lua``).
COUNT_BATCH: Final[Command] = ("ZCOUNT", QUEUE, _BATCH, "+inf")


def created_s(turn: float) -> float | None:
    """Return when the stream with this turn was created, Unix seconds: now if it is a batch stream, None if its turn
    does not say."""
    if turn >= _BATCH:
        return time.time()
    return turn % _ROUND if turn >= 0 else None


def job_of(stream_id: str) -> bytes:
    """Serialize a stream's job in arq's format."""
    return serialize_job(JOB, (stream_id,), {}, None, time.time_ns() // 1_000_000, serializer=msgspec.json.encode)


async def queue_positions(client: Client, stream_ids: Sequence[str], limited: Iterable[str]) -> list[int | None]:
    """Return each stream's position, 1 for the next, in the queue or among those parked for a provider; None if a
    worker has taken it. ``limited``: providers with limits. Raises :class:`BrokerUnavailable`."""
    parked = [provider_limit_keys(provider)[1] for provider in limited]
    commands: list[Command] = []
    for stream_id in stream_ids:
        commands += [("ZRANK", QUEUE, job_id_of(stream_id)), *(("ZRANK", key, stream_id) for key in parked)]
    ranks = iter(await run_commands(client, commands))
    found = ([rank for rank in islice(ranks, 1 + len(parked)) if rank is not None] for _ in stream_ids)
    return [min(ranks_of_one) + 1 if ranks_of_one else None for ranks_of_one in found]
