"""The configuration that all processes of one Redis share: the hash of the newest loaded file, and its limits.

``hr:configurations`` is a sorted set of hashes by the time at which a process last read such a file;
``hr:configuration:<hash>`` has the limits, by provider. The newest hash counts for all processes. Every function here
raises :class:`BrokerUnavailable`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import CONFIGURATIONS, configuration_key
from shared.broker.pipeline_connection import Command
from shared.configuration.configuration import Configuration
from shared.rate_limits import UNLIMITED, TargetLimits

_KEPT_S: Final = 24 * 3600
_MOST: Final = 10


#: By provider; those without limits are left out.
Limits = Mapping[str, TargetLimits]
_decoder: Final = msgspec.json.Decoder(dict[str, TargetLimits])


@dataclass(frozen=True, slots=True)
class SharedConfiguration:
    """``loaded_at``: Unix seconds of the last time at which a process read this file."""

    hash: str
    loaded_at: float
    limits: Limits


def limits_of(configuration: Configuration) -> dict[str, TargetLimits]:
    """Return the limits that a configuration sets, in the file or with HEADRACE_PROVIDER_STREAMS."""
    streams = configuration.settings.provider_streams
    found = {name: TargetLimits(concurrent_streams=limit) for name, limit in streams.items()}
    for name, entry in configuration.document.providers.items():
        found[name] = TargetLimits(
            entry.concurrent_streams or 0, entry.requests_per_minute or 0, entry.tokens_per_minute or 0
        )
    return {name: limits for name, limits in found.items() if limits != UNLIMITED}


async def publish(client: Client, configuration_hash: str, loaded_at: float, limits: Limits) -> None:
    """Publish the configuration of this process, read at ``loaded_at``. Repeat it so that it does not expire."""
    key = configuration_key(configuration_hash)
    commands: list[Command] = [
        ("SET", key, msgspec.json.encode(limits), "EX", _KEPT_S),
        ("ZADD", CONFIGURATIONS, "GT", loaded_at, configuration_hash),
        ("ZREMRANGEBYRANK", CONFIGURATIONS, 0, -_MOST - 1),
        ("EXPIRE", CONFIGURATIONS, _KEPT_S),
    ]
    await run_commands(client, commands)


async def read(client: Client) -> SharedConfiguration | None:
    """Return the newest configuration that a process has read; None if Redis has none."""
    (newest,) = await run_commands(client, [("ZRANGE", CONFIGURATIONS, 0, 0, "REV", "WITHSCORES")])
    if not newest:
        return None
    configuration_hash = newest[0].decode()
    (limits,) = await run_commands(client, [("GET", configuration_key(configuration_hash))])
    if limits is None:
        return None
    return SharedConfiguration(configuration_hash, float(newest[1]), _decoder.decode(limits))
