"""Redis' use of memory: of all nodes together, and per stream."""

import asyncio
from dataclasses import dataclass

from shared.broker.client import Client, parse_info, run_commands, run_on_each
from shared.broker.keys import stream_keys, sweep_keys
from shared.broker.pipeline_connection import Command

_INDEXES = [index for index, _ in sweep_keys()]
_SAMPLED_STREAMS = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of Redis. ``used`` and ``limit`` in bytes, ``limit`` 0 if there is none. ``live``: number of active
    streams. ``stream``: mean bytes of a sample of these; 0 if there is none."""

    used: int
    limit: int
    live: int
    stream: int


async def read_memory(client: Client) -> Memory:
    """Sample the memory; the cost for Redis does not depend on the number of streams. Raises
    :class:`BrokerUnavailable`."""
    looks: list[Command] = [(name, index) for name in ("ZCARD", "ZRANDMEMBER") for index in _INDEXES]
    info, replies = await asyncio.gather(  # together they share an exchange
        run_on_each(client, ("INFO", "memory")), run_commands(client, looks)
    )
    nodes = [parse_info(reply) for reply in info.values()]
    counts, ids = replies[: len(_INDEXES)], replies[len(_INDEXES) :]
    sample = [each.decode() for each in ids if each is not None][:_SAMPLED_STREAMS]
    keys = [key for stream_id in sample for key in stream_keys(stream_id)[:3]]
    sizes = await run_commands(client, [("MEMORY", "USAGE", key, "SAMPLES", 16) for key in keys]) if keys else []
    return Memory(
        used=sum(int(node["used_memory"]) for node in nodes),
        limit=sum(int(node["maxmemory"]) for node in nodes),
        live=sum(counts),
        stream=round(sum(size or 0 for size in sizes) / len(sample)) if sample else 0,
    )
