"""The circuit breakers, one per provider, that all workers share through Redis.

``hr:breaker:<provider>`` exists while the breaker is open; ``…:failures`` counts failures in a row. If only the
second exists, the breaker is half-open: one request probes the provider before all others. Every function here raises
:class:`BrokerUnavailable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import breaker_failures_key, breaker_key

#: How long the count is kept after the breaker has closed.
_COUNT_KEPT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Breaker:
    open: bool = False
    failures: int = 0


async def read_breakers(client: Client, providers: Sequence[str]) -> dict[str, Breaker]:
    """Return the breaker of each provider."""
    keys = [key for name in providers for key in (breaker_key(name), breaker_failures_key(name))]
    (values,) = await run_commands(client, [("MGET", *keys)])
    pairs = zip(values[::2], values[1::2], strict=True)
    return {
        name: Breaker(is_open is not None, int(failures or 0))
        for name, (is_open, failures) in zip(providers, pairs, strict=True)
    }


async def count_failure(client: Client, provider: str, *, limit: int, open_s: float) -> Breaker:
    """Count one more failure; from the ``limit``-th on, open the breaker for ``open_s``."""
    key, open_ms = breaker_failures_key(provider), round(open_s * 1000)
    failures, _ = await run_commands(client, [("INCR", key), ("PEXPIRE", key, open_ms + _COUNT_KEPT_MS)])
    if failures >= limit:
        await run_commands(client, [("SET", breaker_key(provider), 1, "PX", open_ms)])
    return Breaker(failures >= limit, failures)


async def take_probe(client: Client, provider: str, *, open_s: float) -> bool:
    """Return True if the caller is to probe the provider; for all others the breaker stays open meanwhile."""
    (reply,) = await run_commands(client, [("SET", breaker_key(provider), 1, "PX", round(open_s * 1000), "NX")])
    return reply is not None


async def close_breaker(client: Client, provider: str) -> None:
    """Close the breaker and forget the provider's failures."""
    await run_commands(client, [("DEL", breaker_key(provider), breaker_failures_key(provider))])
