"""Jobs in arq's format, and queue positions. ``admit.lua`` queues new streams.

The queue's consumer is ``workers/jobs/queue.py``; no other module imports arq.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
from arq.jobs import serialize_job

from shared.broker.client import Client, run_commands
from shared.broker.keys import QUEUE, job_id_of, provider_limit_keys
from shared.broker.pipeline_connection import Command

#: arq's name of the only kind of job.
JOB: Final = "generate"
#: Turns of batch streams begin here, and a round has so many (``_classes.lua``).
_BATCH, _ROUND = 1 << 56, 1 << 32


def class_commands(limited: Iterable[str]) -> list[Command]:
    """Return the commands that :func:`batch_and_oldest` needs: about the queue, and about those parked for each
    provider with limits."""
    keys = [QUEUE, *(provider_limit_keys(provider)[1] for provider in limited)]
    return [
        command for key in keys for command in (("ZCOUNT", key, _BATCH, "+inf"), ("ZRANGE", key, 0, 0, "WITHSCORES"))
    ]


def batch_and_oldest(replies: Sequence[Any]) -> tuple[int, float | None]:
    """Return how many batch streams wait, and when the first interactive one was created, Unix seconds: now if there
    is none, None if no turn says it. A stream that is parked for several providers counts for each."""
    batch, heads = sum(replies[::2]), [float(head[1]) for head in replies[1::2] if head]
    created = [time.time() if turn >= _BATCH else turn % _ROUND for turn in heads if turn >= 0]
    return batch, min(created, default=None)


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
