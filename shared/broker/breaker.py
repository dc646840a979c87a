"""The circuit breakers that all workers share: what Redis knows of a provider's failures.

``hr:breaker:<provider>`` stands while the provider is left alone; ``…:failures`` counts its failures in a row. Where
only the second is left, one request may try before all others do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.broker.client import TROUBLE, Client
from shared.broker.keys import breaker_failures_key, breaker_key
from shared.errors import BrokerUnavailable

#: How long after the last failure the count is kept, beyond the time for which the provider is left alone.
_REMEMBERED_S = 60


@dataclass(frozen=True, slots=True)
class Breaker:
    open: bool = False
    failures: int = 0


async def read_breakers(client: Client, providers: Sequence[str]) -> dict[str, Breaker]:
    """Raises :class:`BrokerUnavailable`, as all here do."""
    keys = [key for name in providers for key in (breaker_key(name), breaker_failures_key(name))]
    try:
        values: list[bytes | None] = await client.mget(keys)
    except TROUBLE as error:
        raise BrokerUnavailable from error
    pairs = zip(values[::2], values[1::2], strict=True)
    return {
        name: Breaker(stands is not None, int(failures or 0))
        for name, (stands, failures) in zip(providers, pairs, strict=True)
    }


async def count_failure(client: Client, provider: str, *, limit: int, open_s: float) -> Breaker:
    """One more; from the ``limit``-th on the provider is left alone for ``open_s``."""
    try:
        async with client.pipeline(transaction=True) as pipe:
            pipe.incr(breaker_failures_key(provider))
            pipe.pexpire(breaker_failures_key(provider), round((open_s + _REMEMBERED_S) * 1000))
            failures = int((await pipe.execute())[0])
        if failures >= limit:
            await client.set(breaker_key(provider), 1, px=round(open_s * 1000))
    except TROUBLE as error:
        raise BrokerUnavailable from error
    return Breaker(failures >= limit, failures)


async def try_first(client: Client, provider: str, *, open_s: float) -> bool:
    """Whether the caller is the one who tries; for all others the provider is left alone until it has an answer."""
    try:
        return bool(await client.set(breaker_key(provider), 1, px=round(open_s * 1000), nx=True))
    except TROUBLE as error:
        raise BrokerUnavailable from error


async def forget_failures(client: Client, provider: str) -> None:
    try:
        await client.delete(breaker_key(provider), breaker_failures_key(provider))
    except TROUBLE as error:
        raise BrokerUnavailable from error
