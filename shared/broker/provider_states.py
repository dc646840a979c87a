"""State of the providers for operators: models on offer, limits and their use, paused keys and open breakers."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.broker.catalog import ProviderModels, read_catalog
from shared.broker.circuit_breaker import Breaker, read_breakers
from shared.broker.client import Client, run_commands
from shared.broker.keys import provider_limit_keys
from shared.broker.paused_keys import Pauses, now_ms, read_pauses
from shared.broker.pipeline_connection import Command
from shared.broker.shared_configuration import read
from shared.rate_limits import UNLIMITED, TargetLimits

_MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True)
class Usage:
    """Streams at a provider now, and calls and tokens of the last minute. They are counted if there is a limit of
    their kind."""

    running: int
    waiting: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ProviderState:
    """``offered``: None if no worker offers the provider. ``breakers``: by model, of those with failures."""

    offered: ProviderModels | None
    limits: TargetLimits
    usage: Usage
    pauses: Pauses
    breakers: Mapping[str, Breaker] = field(default_factory=dict)


async def read_provider_states(client: Client, names: Collection[str]) -> dict[str, ProviderState]:
    """Return the states of these providers and of all on offer. Raises :class:`BrokerUnavailable`."""
    catalog, newest, breakers = await read_catalog(client), await read(client), await read_breakers(client)
    providers = list(dict.fromkeys([*names, *catalog]))
    usages = await _read_usages(client, providers)
    pauses = {} if newest is None else await read_pauses(client, newest.hash, providers)
    limits = {} if newest is None else newest.limits
    return {
        name: ProviderState(
            offered=catalog.get(name),
            limits=limits.get(name, UNLIMITED),
            usage=usage,
            pauses=pauses.get(name, {}),
            breakers=_of_provider(name, breakers),
        )
        for name, usage in zip(providers, usages, strict=True)
    }


def _of_provider(name: str, breakers: Mapping[str, Breaker]) -> dict[str, Breaker]:
    prefix = f"{name}/"
    return {target.removeprefix(prefix): each for target, each in breakers.items() if target.startswith(prefix)}


async def _read_usages(client: Client, providers: Collection[str]) -> list[Usage]:
    commands: list[Command] = []
    for provider in providers:
        running, parked, _, used = provider_limit_keys(provider)
        commands += [("ZCOUNT", running, now_ms(), "+inf"), ("ZCARD", parked), ("HGETALL", used)]
    replies = await run_commands(client, commands) if commands else []
    return [
        Usage(running, waiting, _last_minute(used, b"r"), _last_minute(used, b"t"))
        for running, waiting, used in zip(*(replies[at::3] for at in range(3)), strict=True)
    ]


def _last_minute(used: list[bytes], kind: bytes) -> int:
    since = time.time() - _MINUTE_S
    counts = zip(used[::2], used[1::2], strict=True)
    return sum(int(n) for name, n in counts if name[:1] == kind and float(name[1:]) > since)
