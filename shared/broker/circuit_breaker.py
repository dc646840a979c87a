"""The circuit breakers, one per target (``provider/model``), that all workers share through Redis.

``breaker:<target>`` exists while the breaker is open; ``…:failures`` counts failures in a row. If only the second
exists, the breaker is half-open: one request probes the target before all others. ``breakers`` has the targets
that failed lately. Every function here raises :class:`BrokerUnavailable`.
"""

import time
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import BREAKERS, breaker_failures_key, breaker_key
from shared.broker.pipeline_connection import Command

#: How long the count is kept after the breaker has closed.
_COUNT_KEPT_MS: Final = 60_000
#: Targets that are known at a time: those that failed last.
_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Breaker:
    open: bool = False
    failures: int = 0


async def read_breakers(client: Client) -> dict[str, Breaker]:
    """Return the breakers of targets that failed lately; all others are closed."""
    (members,) = await run_commands(client, [("ZRANGE", BREAKERS, 0, _MOST - 1, "REV")])
    if not members:
        return {}
    targets = [member.decode() for member in members]
    keys = [key for target in targets for key in (breaker_key(target), breaker_failures_key(target))]
    (values,) = await run_commands(client, [("MGET", *keys)])
    pairs = zip(values[::2], values[1::2], strict=True)
    breakers = {
        target: Breaker(is_open is not None, int(failures or 0))
        for target, (is_open, failures) in zip(targets, pairs, strict=True)
    }
    return {target: breaker for target, breaker in breakers.items() if breaker != Breaker()}


async def count_failure(client: Client, target: str, *, limit: int, open_s: float) -> Breaker:
    """Count one more failure; from the ``limit``-th on, open the breaker for ``open_s``."""
    key, open_ms = breaker_failures_key(target), round(open_s * 1000)
    commands: list[Command] = [("INCR", key), ("PEXPIRE", key, open_ms + _COUNT_KEPT_MS), *_listed(target, open_ms)]
    failures = (await run_commands(client, commands))[0]
    if failures >= limit:
        await run_commands(client, [("SET", breaker_key(target), 1, "PX", open_ms)])
    return Breaker(failures >= limit, failures)


async def take_probe(client: Client, target: str, *, open_s: float) -> bool:
    """Return True if the caller is to probe the target; for all others the breaker stays open meanwhile."""
    open_ms = round(open_s * 1000)
    (reply,) = await run_commands(client, [("SET", breaker_key(target), 1, "PX", open_ms, "NX")])
    if reply is not None:
        await run_commands(client, _listed(target, open_ms))
    return reply is not None


async def close_breaker(client: Client, target: str) -> None:
    """Close the breaker and forget the target's failures."""
    keys = breaker_key(target), breaker_failures_key(target)
    await run_commands(client, [("DEL", *keys), ("ZREM", BREAKERS, target)])


def _listed(target: str, open_ms: int) -> list[Command]:
    """Commands that list a target as long as its breaker or its count may exist."""
    now_ms, life_ms = time.time_ns() // 1_000_000, open_ms + _COUNT_KEPT_MS
    return [
        ("ZADD", BREAKERS, now_ms, target),
        ("ZREMRANGEBYSCORE", BREAKERS, "-inf", now_ms - life_ms),
        ("ZREMRANGEBYRANK", BREAKERS, 0, -_MOST - 1),
        ("PEXPIRE", BREAKERS, life_ms),
    ]
