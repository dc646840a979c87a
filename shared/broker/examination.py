"""State of the servers behind HEADRACE_REDIS_URL, for ``headrace doctor``: only reads."""

import statistics
import time
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client, parse_info, run_on_each
from shared.broker.cluster.address import Node
from shared.broker.pipeline_connection import Command

_PINGS: Final = 9


@dataclass(frozen=True, slots=True)
class Server:
    """One server with data. ``limit``: bytes, 0 if there is none. ``is_durable``: it has an append-only file.
    ``has_snapshots``: it has written its data to disk at least once. ``writes_fail``: its last write to disk failed.
    ``offset_s``: its clock is ahead of this machine's by so much."""

    name: str
    version: str
    policy: str
    used: int
    limit: int
    is_durable: bool
    has_snapshots: bool
    writes_fail: bool
    evicted: int
    latency_s: float
    offset_s: float

    @property
    def full(self) -> float:
        """Return the share of its memory that is used; 0 without a limit."""
        return self.used / self.limit if self.limit else 0.0


async def examine(client: Client) -> list[Server]:
    """Read the state of each server. Raises :class:`BrokerUnavailable`."""
    infos = await run_on_each(client, ("INFO",))
    latency_s = statistics.median([await _round_trip_s(client, ("PING",)) for _ in range(_PINGS)])
    offsets = await _offsets(client)
    found = []
    for node, reply in infos.items():
        info = parse_info(reply)
        found.append(
            Server(
                name=str(node) if len(infos) > 1 else "",
                version=info.get("valkey_version") or info.get("redis_version", "?"),
                policy=info.get("maxmemory_policy", "?"),
                used=int(info.get("used_memory", 0)),
                limit=int(info.get("maxmemory", 0)),
                is_durable=info.get("aof_enabled") == "1",
                has_snapshots=int(info.get("rdb_saves", 0)) > 0,
                writes_fail="err" in {info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")},
                evicted=int(info.get("evicted_keys", 0)),
                latency_s=latency_s,
                offset_s=offsets[node],
            )
        )
    return found


async def _round_trip_s(client: Client, command: Command) -> float:
    began_at = time.monotonic()
    await run_on_each(client, command)
    return time.monotonic() - began_at


async def _offsets(client: Client) -> dict[Node, float]:
    """Compare the clocks by the fastest of a few exchanges, which is the most exact."""
    best: dict[Node, float] = {}
    fastest_s = float("inf")
    for _ in range(3):
        sent_at = time.time()
        replies = await run_on_each(client, ("TIME",))
        took_s = time.time() - sent_at
        if took_s < fastest_s:
            fastest_s = took_s
            middle = sent_at + took_s / 2
            best = {node: int(s) + int(us) / 1_000_000 - middle for node, (s, us) in replies.items()}
    return best
