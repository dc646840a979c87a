"""Queue positions. ``admit.lua`` queues new streams; the queue's consumer is ``workers/jobs/queue.py``."""

from collections.abc import Iterable, Sequence
from itertools import islice

from shared.broker.client import Client, run_commands
from shared.broker.keys import QUEUE, provider_limit_keys


async def queue_positions(client: Client, stream_ids: Sequence[str], limited: Iterable[str]) -> list[int | None]:
    """Return each stream's position, 1 for the next, in the queue or among those parked for a provider; None if a
    worker has taken it. ``limited``: providers with limits. Raises :class:`BrokerUnavailable`."""
    keys = [QUEUE, *(provider_limit_keys(provider)[1] for provider in limited)]
    ranks = iter(await run_commands(client, [("ZRANK", key, stream_id) for stream_id in stream_ids for key in keys]))
    found = ([rank for rank in islice(ranks, len(keys)) if rank is not None] for _ in stream_ids)
    return [min(ranks_of_one) + 1 if ranks_of_one else None for ranks_of_one in found]
