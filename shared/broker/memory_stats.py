"""What Redis holds: in all, and for a stream."""

from dataclasses import dataclass
from typing import Any

from shared.broker.client import Client, parse_info, run_commands
from shared.broker.keys import stream_keys, sweep_keys

_INDEXES = [index for index, _ in sweep_keys()]
_LOOKED_AT = 4


@dataclass(frozen=True, slots=True)
class Memory:
    """``limit``: 0 for none. ``live``: how many streams wait or run. ``stream``: bytes of one, the mean of some of
    these; 0 where there is none."""

    used: int
    limit: int
    live: int
    stream: int


async def read_memory(client: Client) -> Memory:
    """Costs Redis the same however many streams there are. Raises :class:`BrokerUnavailable`."""
    answers: list[Any] = await run_commands(
        client,
        [
            ("INFO", "memory"),
            *(("ZCARD", index) for index in _INDEXES),
            *(("ZRANDMEMBER", index) for index in _INDEXES),
        ],
    )
    info, counts, ids = parse_info(answers[0]), answers[1 : len(_INDEXES) + 1], answers[len(_INDEXES) + 1 :]
    some = [each.decode() for each in ids if each is not None][:_LOOKED_AT]
    keys = [key for stream_id in some for key in stream_keys(stream_id)[:3]]
    sizes = await run_commands(client, [("MEMORY", "USAGE", key, "SAMPLES", 16) for key in keys]) if keys else []
    return Memory(
        used=int(info["used_memory"]),
        limit=int(info["maxmemory"]),
        live=sum(counts),
        stream=round(sum(size or 0 for size in sizes) / len(some)) if some else 0,
    )
