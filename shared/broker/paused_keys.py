"""API keys of providers that are paused, for all workers with the same configuration. Keys appear as their ids only.

``hr:{desk}:paused:<configuration>:<provider>`` is a sorted set of "<key id>" (the provider refused the key) and
"<key id> <model>" (it limited the rate) by the end of the pause. Every function here raises
:class:`BrokerUnavailable`.
"""

import time
from collections.abc import Sequence
from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import paused_key
from shared.broker.pipeline_connection import Command

#: Most pauses of one provider: a client may invent names of models.
_MOST: Final = 1000
#: Pause → its end, in Unix milliseconds.
Pauses = dict[str, int]


def pause_of(key_id: str, model: str | None = None) -> str:
    """Return the name of a key's pause, for one model or for all."""
    return key_id if model is None else f"{key_id} {model}"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def pause_key(client: Client, configuration_hash: str, provider: str, pause: str, *, until_ms: int) -> None:
    """Pause a key; a longer pause stays."""
    key = paused_key(configuration_hash, provider)
    commands: list[Command] = [
        ("ZADD", key, "GT", until_ms, pause),
        ("ZREMRANGEBYSCORE", key, "-inf", now_ms()),
        ("ZREMRANGEBYRANK", key, 0, -_MOST - 1),
        ("PEXPIREAT", key, until_ms, "NX"),
        ("PEXPIREAT", key, until_ms, "GT"),
    ]
    await run_commands(client, commands)


async def resume_key(client: Client, configuration_hash: str, provider: str, pause: str) -> None:
    """End a pause."""
    await run_commands(client, [("ZREM", paused_key(configuration_hash, provider), pause)])


async def read_pauses(client: Client, configuration_hash: str, providers: Sequence[str]) -> dict[str, Pauses]:
    """Return the pauses of each provider."""
    if not providers:
        return {}
    keys = [paused_key(configuration_hash, provider) for provider in providers]
    replies = await run_commands(client, [("ZRANGEBYSCORE", key, now_ms(), "+inf", "WITHSCORES") for key in keys])
    return {
        provider: {name.decode(): int(float(end)) for name, end in zip(flat[::2], flat[1::2], strict=True)}
        for provider, flat in zip(providers, replies, strict=True)
    }
