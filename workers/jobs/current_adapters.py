"""The adapters of the configuration in force, and older ones that running streams still use."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client
from shared.configuration.configuration import Configuration
from shared.configuration.document import ConfigurationError
from shared.polling import next_poll
from workers.jobs.attempts import ProviderAttempts
from workers.providers.base import Provider
from workers.providers.endpoint import Endpoint, endpoints_of
from workers.providers.keys import Keys
from workers.providers.registry import maker_of, provider_of

logger = logging.getLogger(__name__)

MakeAttempts = Callable[[Mapping[str, Provider], Keys, Configuration], ProviderAttempts]
_READ_EVERY_S: Final = 1.0


@dataclass(slots=True, eq=False)
class AdapterSet:
    """Adapters of one configuration. ``problems``: of providers that are left out. ``users``: number of streams, and
    other work, that began with it."""

    configuration: Configuration
    endpoints: Mapping[str, Endpoint]
    problems: list[str]
    providers: Mapping[str, Provider]
    keys: Keys
    attempts: ProviderAttempts
    users: int = 0


class CurrentAdapters:
    """Holder of the adapter set for new streams. An adapter closes after the last stream of the last set that has
    it. Requires a running event loop."""

    def __init__(self, client: Client, configuration: Configuration, make_attempts: MakeAttempts) -> None:
        self._client = client
        self._make_attempts = make_attempts
        self._older = list[AdapterSet]()
        self._closing = set[asyncio.Task[None]]()
        self.changed = asyncio.Event()
        endpoints, problems = endpoints_of(configuration)
        for problem in problems:
            logger.error("provider left out", extra={"detail": problem})
        self._current = self._made(configuration, endpoints, problems, {})

    @property
    def providers(self) -> Mapping[str, Provider]:
        """Adapters for new streams."""
        return self._current.providers

    async def run(self) -> None:
        """Run until cancelled: read the pauses of the keys every second."""
        while True:
            for used in (self._current, *self._older):
                await used.keys.read()
            await next_poll(_READ_EVERY_S)

    @contextmanager
    def in_use(self) -> Iterator[AdapterSet]:
        """Provide the set in force. It stays open until the end of the block, even if it is replaced."""
        used = self._current
        used.users += 1
        try:
            yield used
        finally:
            used.users -= 1
            self._close_unused()

    async def replace(self, configuration: Configuration) -> None:
        """Use another configuration for new streams. Raises :class:`ConfigurationError` if one of its providers
        cannot be used, unless that was so before."""
        endpoints, problems = await asyncio.to_thread(endpoints_of, configuration)
        if added := [problem for problem in problems if problem not in self._current.problems]:
            raise ConfigurationError("\n".join(added))
        for kind in {endpoint.entry.kind for endpoint in endpoints.values()}:
            await asyncio.to_thread(maker_of, kind)  # to import an SDK takes half a second
        old = self._current
        kept = {
            name: old.providers[name] for name in old.endpoints if _is_same(old.endpoints[name], endpoints.get(name))
        }
        self._current = self._made(configuration, endpoints, problems, kept)
        self._older.append(old)
        self.changed.set()
        self._close_unused()

    async def aclose(self) -> None:
        """Close all adapters."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        for provider in _adapters_of(self._current, *self._older):
            await provider.aclose()

    def _made(
        self,
        configuration: Configuration,
        endpoints: Mapping[str, Endpoint],
        problems: list[str],
        kept: Mapping[str, Provider],
    ) -> AdapterSet:
        providers = {name: kept.get(name) or provider_of(endpoint) for name, endpoint in endpoints.items()}
        keys = Keys(self._client, endpoints)
        attempts = self._make_attempts(providers, keys, configuration)
        return AdapterSet(configuration, endpoints, problems, providers, keys, attempts)

    def _close_unused(self) -> None:
        """Close the adapters of sets without users, except those that other sets have too."""
        unused = [used for used in self._older if not used.users]
        if not unused:
            return
        self._older = [used for used in self._older if used.users]
        needed = _adapters_of(self._current, *self._older)
        for provider in _adapters_of(*unused) - needed:
            task = asyncio.create_task(provider.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _adapters_of(*sets: AdapterSet) -> set[Provider]:
    return {provider for each in sets for provider in each.providers.values()}


def _is_same(old: Endpoint, new: Endpoint | None) -> bool:
    """Return True if an adapter of ``old`` serves ``new``: it keeps its connections, and fields that it learned."""
    return new is not None and (old.entry, old.keys, old.is_short_form) == (new.entry, new.keys, new.is_short_form)
