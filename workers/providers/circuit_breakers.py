"""Leaving alone a provider that keeps failing, so that its timeout is not every request's to wait for."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from shared.broker.circuit_breaker import Breaker, count_failure, forget_failures, read_breakers, try_first
from shared.broker.client import Client
from shared.errors import BrokerUnavailable, ProviderError
from shared.settings import Settings
from workers import metrics

logger = logging.getLogger(__name__)

#: What tells of the provider, not of the request.
_TELLING: Final = frozenset(
    {
        "provider_unavailable",
        "provider_unreachable",
        "provider_connect_timeout",
        "provider_first_token_timeout",
    }
)
#: What only a provider that is well says.
_WELL: Final = frozenset({"provider_auth", "provider_rejected", "provider_model_not_found", "provider_rate_limited"})
_READ_EVERY_S: Final = 1.0


class Breakers:
    """What this worker knows of all workers' breakers; no older than a second, so that no request waits for it."""

    def __init__(self, client: Client, providers: Iterable[str], settings: Settings) -> None:
        self._client = client
        self._limit = settings.breaker_failures
        self._open_s = settings.breaker_open_s
        self._known = dict.fromkeys(providers, Breaker())
        for provider in self._known:
            metrics.BREAKER_REFUSALS.labels(provider)  # told from the start, as 0

    async def run(self) -> None:
        """For ever; without Redis what is known stands."""
        while True:
            with suppress(BrokerUnavailable):
                for name, breaker in (await read_breakers(self._client, list(self._known))).items():
                    self._note(name, breaker)
            await asyncio.sleep(_READ_EVERY_S)

    async def admit(self, provider: str) -> None:
        """Raises :class:`ProviderError` where the provider is to be left alone."""
        breaker = self._known[provider]
        if breaker.open or (breaker.failures >= self._limit and not await self._is_first(provider)):
            metrics.BREAKER_REFUSALS.labels(provider).inc()
            message = f"{provider} failed {breaker.failures} times in a row and is left alone for a while"
            raise ProviderError("provider_circuit_open", message, retryable=True, retry_after_s=self._open_s)

    async def failed(self, provider: str, error: ProviderError, *, counts: bool) -> None:
        """``counts``: it is the request's first failure there."""
        metrics.PROVIDER_FAILURES.labels(provider, error.code).inc()
        if error.code in _WELL:
            await self.succeeded(provider)
        elif error.code in _TELLING and counts:
            with suppress(BrokerUnavailable):
                breaker = await count_failure(self._client, provider, limit=self._limit, open_s=self._open_s)
                self._note(provider, breaker)

    async def succeeded(self, provider: str) -> None:
        if self._known[provider].failures:
            with suppress(BrokerUnavailable):
                await forget_failures(self._client, provider)
                self._note(provider, Breaker())

    async def _is_first(self, provider: str) -> bool:
        try:
            return await try_first(self._client, provider, open_s=self._open_s)
        except BrokerUnavailable:
            return True

    def _note(self, provider: str, breaker: Breaker) -> None:
        if breaker.open != self._known[provider].open:
            logger.warning("provider %s %s", provider, "is left alone" if breaker.open else "is asked again")
        metrics.BREAKER_OPEN.labels(provider).set(breaker.open)
        self._known[provider] = breaker
