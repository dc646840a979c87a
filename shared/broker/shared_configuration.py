"""The configuration that all processes of one Redis share: the hash of the newest loaded file, and its limits.

``configurations`` is a sorted set of hashes by the time at which a process last read such a file;
``configuration:<hash>`` has the limits, by provider. The newest hash counts for all processes. The functions here
raise :class:`BrokerUnavailable`.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import CONFIGURATIONS, configuration_key
from shared.broker.pipeline_connection import Command
from shared.broker.scripts import StreamScripts
from shared.configuration.configuration import Configuration
from shared.errors import BrokerUnavailable
from shared.polling import next_poll
from shared.rate_limits import UNLIMITED, TargetLimits

logger = logging.getLogger(__name__)

_READ_EVERY_S: Final = 1.0
_PUBLISH_EVERY_S: Final = 60.0
_WARN_EVERY_S: Final = 60.0
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


async def read(client: Client, expected_hash: str = "") -> SharedConfiguration | None:
    """Return the newest configuration that a process has read; None if Redis has none. A second exchange is needed
    only if it is not the expected one."""
    newest, limits = await run_commands(
        client,
        [("ZRANGE", CONFIGURATIONS, 0, 0, "REV", "WITHSCORES"), ("GET", configuration_key(expected_hash))],
    )
    if not newest:
        return None
    configuration_hash = newest[0].decode()
    if configuration_hash != expected_hash:
        (limits,) = await run_commands(client, [("GET", configuration_key(configuration_hash))])
    if limits is None:
        return None
    return SharedConfiguration(configuration_hash, float(newest[1]), _decoder.decode(limits))


class ConfigurationWatch:
    """Publishes the configuration of this process, and gives the limits of the newest one to ``scripts``, with the
    prices of this one. A process
    with another configuration logs a warning every minute."""

    def __init__(self, client: Client, scripts: StreamScripts, configuration: Configuration) -> None:
        self._client = client
        self._scripts = scripts
        self._newest: SharedConfiguration | None = None
        self._warned_at = -_WARN_EVERY_S
        self.load(configuration)

    @property
    def hash(self) -> str:
        """Hash of this process' own configuration."""
        return self._own.hash

    def load(self, configuration: Configuration) -> None:
        """Use a configuration that this process has just read."""
        self._own = SharedConfiguration(configuration.hash, time.time(), limits_of(configuration))
        self._published_at = -_PUBLISH_EVERY_S
        self._scripts.target_limits = self._own.limits
        self._scripts.prices = configuration.prices

    async def run(self) -> None:
        """Run until cancelled: publish and read. Without Redis the last limits stay."""
        while True:
            with suppress(BrokerUnavailable):
                await self._exchange()
            await next_poll(_READ_EVERY_S)

    async def _exchange(self) -> None:
        own, now = self._own, time.monotonic()
        if now - self._published_at >= _PUBLISH_EVERY_S:
            await publish(self._client, own.hash, own.loaded_at, own.limits)
            self._published_at = now
        newest = await read(self._client, own.hash)
        if newest is None:  # Redis has lost it
            self._published_at = -_PUBLISH_EVERY_S
            return
        if own is not self._own:
            return
        self._scripts.target_limits = newest.limits
        if newest.hash != own.hash and now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            detail = "another process has read another headrace.toml or HEADRACE_PROVIDER_STREAMS, and its limits are"
            detail += " used; run headrace reload, or restart this process with the same file"
            line = {"configuration": own.hash, "newest": newest.hash, "detail": detail}
            logger.warning("configuration differs", extra=line)
