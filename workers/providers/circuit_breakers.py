"""Circuit breakers: a provider that keeps failing gets no requests for a while, so that none waits for its
timeout."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from shared.broker.circuit_breaker import Breaker, close_breaker, count_failure, read_breakers, take_probe
from shared.broker.client import Client
from shared.errors import BrokerUnavailable, ProviderError
from shared.settings import Settings
from workers import metrics
from workers.providers.errors import provider_failure

logger = logging.getLogger(__name__)

#: Failures of the provider itself, not of the request.
_PROVIDER_FAULTS: Final = frozenset(
    {
        "provider_unavailable",
        "provider_unreachable",
        "provider_connect_timeout",
        "provider_first_token_timeout",
    }
)
#: Refusals that prove a working provider.
_REFUSALS: Final = frozenset(
    {"provider_auth", "provider_rejected", "provider_model_not_found", "provider_rate_limited"}
)
_READ_EVERY_S: Final = 1.0


class Breakers:
    """Local copy of the breakers that all workers share. It is at most a second old, so that no request waits for
    Redis."""

    def __init__(self, client: Client, providers: Iterable[str], settings: Settings) -> None:
        self._client = client
        self._limit = settings.breaker_failures
        self._open_s = settings.breaker_open_s
        self._known = dict[str, Breaker]()
        self.follow(providers)

    def follow(self, providers: Iterable[str]) -> None:
        """Add providers."""
        for provider in providers:
            self._known.setdefault(provider, Breaker())
            metrics.BREAKER_REFUSALS.labels(provider)  # exported as 0 from the start

    async def run(self) -> None:
        """Run until cancelled: read the breakers every second. Without Redis the last state stays."""
        while True:
            with suppress(BrokerUnavailable):
                for name, breaker in (await read_breakers(self._client, list(self._known))).items():
                    self._note(name, breaker)
            await asyncio.sleep(_READ_EVERY_S)

    async def admit(self, provider: str) -> None:
        """Raise :class:`ProviderError` if the provider's breaker is open."""
        breaker = self._known[provider]
        if breaker.open or (breaker.failures >= self._limit and not await self._is_first(provider)):
            metrics.BREAKER_REFUSALS.labels(provider).inc()
            detail = f"circuit breaker open after {breaker.failures} failures in a row; see HEADRACE_BREAKER_FAILURES"
            raise provider_failure("provider_circuit_open", provider, detail=detail, retry_after_s=self._open_s)

    async def failed(self, provider: str, error: ProviderError, *, counts: bool) -> None:
        """Record a failed call. ``counts``: it is the first failure of its request at this provider."""
        metrics.PROVIDER_FAILURES.labels(provider, error.code).inc()
        if error.code in _REFUSALS:
            await self.succeeded(provider)
        elif error.code in _PROVIDER_FAULTS and counts:
            with suppress(BrokerUnavailable):
                breaker = await count_failure(self._client, provider, limit=self._limit, open_s=self._open_s)
                self._note(provider, breaker)

    async def succeeded(self, provider: str) -> None:
        if self._known[provider].failures:
            with suppress(BrokerUnavailable):
                await close_breaker(self._client, provider)
                self._note(provider, Breaker())

    async def _is_first(self, provider: str) -> bool:
        try:
            return await take_probe(self._client, provider, open_s=self._open_s)
        except BrokerUnavailable:
            return True

    def _note(self, provider: str, breaker: Breaker) -> None:
        if breaker.open != self._known[provider].open:
            event = "circuit breaker opened" if breaker.open else "circuit breaker closed"
            logger.warning(event, extra={"provider": provider, "failures": breaker.failures})
        metrics.BREAKER_OPEN.labels(provider).set(breaker.open)
        self._known[provider] = breaker
