"""Redis' use of memory: in all, and per stream."""

from dataclasses import dataclass
from typing import Any

from shared.broker.client import Client, parse_info, run_commands
from shared.broker.keys import stream_keys, sweep_keys

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
    replies: list[Any] = await run_commands(
        client,
        [
            ("INFO", "memory"),
            *(("ZCARD", index) for index in _INDEXES),
            *(("ZRANDMEMBER", index) for index in _INDEXES),
        ],
    )
    info, counts, ids = parse_info(replies[0]), replies[1 : len(_INDEXES) + 1], replies[len(_INDEXES) + 1 :]
    sample = [each.decode() for each in ids if each is not None][:_SAMPLED_STREAMS]
    keys = [key for stream_id in sample for key in stream_keys(stream_id)[:3]]
    sizes = await run_commands(client, [("MEMORY", "USAGE", key, "SAMPLES", 16) for key in keys]) if keys else []
    return Memory(
        used=int(info["used_memory"]),
        limit=int(info["maxmemory"]),
        live=sum(counts),
        stream=round(sum(size or 0 for size in sizes) / len(sample)) if sample else 0,
    )
