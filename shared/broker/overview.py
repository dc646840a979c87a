"""An overview of all streams and processes for operators, limited to a page.

Its cost for Redis does not grow with the number of streams: it reads a part of each bucket's index, and the states of
the streams that are shown.
"""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Final

from shared.broker.circuit_breaker import read_breakers
from shared.broker.client import Client, run_commands
from shared.broker.keys import ENDED, FAILED, WAITING, endings_key, sweep_keys
from shared.broker.memory_stats import Memory, read_memory
from shared.broker.pipeline_connection import Command
from shared.broker.processes import Process, read_processes
from shared.broker.queue import batch_and_oldest, class_commands
from shared.broker.shared_configuration import read
from shared.broker.timeline import StreamTimeline, read_timeline

#: Most streams shown: active ones, those that have waited longest, and those that ended or failed last.
MOST_LIVE: Final = 100
_MOST_WAITING: Final = 25
_MOST_ENDED: Final = 15
#: Minutes for which endings are counted.
MINUTES: Final = 30

_INDEXES: Final = [index for index, _ in sweep_keys()]
_PER_BUCKET: Final = 8


@dataclass(frozen=True, slots=True)
class Overview:
    """Streams, queue and endings, for operators. ``live``: number of active streams, of which ``streams`` is a part,
    the newest first. ``waiting``: number of streams that no worker has taken yet, the first of them created at
    ``oldest_ms``, and with batch streams among them, ``waiting_batch``, the first interactive one. ``minutes``:
    (minute since 1970, status, ``tokens`` or ``failed:<reason>`` → count), the oldest first. ``open_breakers``:
    targets. ``configuration``: hash of the newest one that a process has read; empty if unknown."""

    at_ms: int
    live: int
    waiting: int
    waiting_batch: int
    oldest_ms: int | None
    streams: list[StreamTimeline]
    ended: list[StreamTimeline]
    failed: list[StreamTimeline]
    processes: list[Process]
    minutes: list[tuple[int, dict[str, int]]]
    open_breakers: list[str]
    configuration: str
    memory: Memory


async def read_overview(client: Client, limited: Collection[str] = ()) -> Overview:
    """Read everything in three pipelines and a few calls. ``limited``: providers with limits. Raises
    :class:`BrokerUnavailable`."""
    at_ms = time.time_ns() // 1_000_000
    minutes = range(at_ms // 60_000 - MINUTES + 1, at_ms // 60_000 + 1)
    commands: list[Command] = [
        ("ZCARD", WAITING),
        ("ZRANGE", WAITING, 0, _MOST_WAITING - 1, "WITHSCORES"),
        ("ZRANGE", ENDED, 0, _MOST_ENDED - 1, "REV"),
        ("ZRANGE", FAILED, 0, _MOST_ENDED - 1, "REV"),
        *(classes := class_commands(limited)),
        *(("HGETALL", endings_key(minute)) for minute in minutes),
        *(("ZRANGE", index, 0, _PER_BUCKET - 1) for index in _INDEXES),
    ]
    replies = iter(await run_commands(client, commands))
    waiting, oldest, ended, failed = (next(replies) for _ in range(4))
    batch, interactive_s = batch_and_oldest([next(replies) for _ in classes])
    counted = [(minute, _counts(next(replies))) for minute in minutes]
    memory = await read_memory(client)
    first = dict.fromkeys(each.decode() for each in oldest[::2])
    chosen = list(islice(first | dict.fromkeys(_round_robin(list(replies))), MOST_LIVE))
    latest = [[each.decode() for each in ids] for ids in (ended, failed)]
    timelines = await read_timeline(client, [*chosen, *latest[0], *latest[1]])
    by_id = {each.stream_id: each for each in timelines}
    return Overview(
        at_ms=at_ms,
        live=memory.live,
        waiting=waiting,
        waiting_batch=min(batch, waiting),
        oldest_ms=_oldest_ms(oldest, interactive_s if batch else None),
        streams=sorted(
            (by_id[each] for each in chosen if each in by_id and by_id[each].is_active),
            key=lambda each: (-(each.at("created") or 0), each.stream_id),
        ),
        ended=[by_id[each] for each in latest[0] if each in by_id],
        failed=[by_id[each] for each in latest[1] if each in by_id],
        processes=await read_processes(client),
        minutes=counted,
        memory=memory,
        configuration=newest.hash if (newest := await read(client)) is not None else "",
        open_breakers=sorted(name for name, each in (await read_breakers(client)).items() if each.open),
    )


def _oldest_ms(oldest: list[bytes], created_s: float | None) -> int | None:
    if not oldest:
        return None
    return int(oldest[1]) if created_s is None else round(created_s * 1000)


def _round_robin(buckets: list[list[bytes]]) -> Iterator[str]:
    """The first of each bucket, then the second of each, so that no bucket is preferred."""
    for row in zip_longest(*buckets):
        yield from (each.decode() for each in row if each is not None)


def _counts(flat: list[bytes]) -> dict[str, int]:
    return {name.decode(): int(n) for name, n in zip(flat[::2], flat[1::2], strict=True)}
