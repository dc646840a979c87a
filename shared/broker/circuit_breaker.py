"""The circuit breakers that all workers share: what Redis knows of a provider's failures.

``hr:breaker:<provider>`` stands while the provider is left alone; ``…:failures`` counts its failures in a row. Where
only the second is left, one request may try before all others do. All here raises :class:`BrokerUnavailable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.broker.client import Client, run_commands
from shared.broker.keys import breaker_failures_key, breaker_key

#: How long after the last failure the count is kept, beyond the time for which the provider is left alone.
_REMEMBERED_MS = 60_000


@dataclass(frozen=True, slots=True)
class Breaker:
    open: bool = False
    failures: int = 0


async def read_breakers(client: Client, providers: Sequence[str]) -> dict[str, Breaker]:
    keys = [key for name in providers for key in (breaker_key(name), breaker_failures_key(name))]
    (values,) = await run_commands(client, [("MGET", *keys)])
    pairs = zip(values[::2], values[1::2], strict=True)
    return {
        name: Breaker(stands is not None, int(failures or 0))
        for name, (stands, failures) in zip(providers, pairs, strict=True)
    }


async def count_failure(client: Client, provider: str, *, limit: int, open_s: float) -> Breaker:
    """One more; from the ``limit``-th on the provider is left alone for ``open_s``."""
    key, open_ms = breaker_failures_key(provider), round(open_s * 1000)
    failures, _ = await run_commands(client, [("INCR", key), ("PEXPIRE", key, open_ms + _REMEMBERED_MS)])
    if failures >= limit:
        await run_commands(client, [("SET", breaker_key(provider), 1, "PX", open_ms)])
    return Breaker(failures >= limit, failures)


async def try_first(client: Client, provider: str, *, open_s: float) -> bool:
    """Whether the caller is the one who tries; for all others the provider is left alone until it has an answer."""
    (answer,) = await run_commands(client, [("SET", breaker_key(provider), 1, "PX", round(open_s * 1000), "NX")])
    return answer is not None


async def forget_failures(client: Client, provider: str) -> None:
    await run_commands(client, [("DEL", breaker_key(provider), breaker_failures_key(provider))])
