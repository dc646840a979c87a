"""Circuit breakers: a target (``provider/model``) that keeps failing gets no requests for a while, so that none waits
for its timeout."""

import logging
from contextlib import suppress
from typing import Final

from shared.broker.circuit_breaker import Breaker, close_breaker, count_failure, read_breakers, take_probe
from shared.broker.client import Client
from shared.errors import BrokerUnavailable, ProviderError
from shared.polling import next_poll
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
_CLOSED: Final = Breaker()


class Breakers:
    """Local copy of the breakers that all workers share. It is at most a second old, so that no request waits for
    Redis, and has only targets that failed lately."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._limit = settings.breaker_failures
        self._open_s = settings.breaker_open_s
        self._known: dict[str, Breaker] = {}

    async def run(self) -> None:
        """Run until cancelled: read the breakers every second. Without Redis the last state stays."""
        while True:
            with suppress(BrokerUnavailable):
                breakers = await read_breakers(self._client)
                for target in [*self._known, *breakers]:
                    self._note(target, breakers.get(target, _CLOSED))
            await next_poll(_READ_EVERY_S)

    def is_open(self, target: str) -> bool:
        """Return True if the target's breaker is open, or waits for the answer to a probe."""
        breaker = self._known.get(target, _CLOSED)
        return breaker.open or breaker.failures >= self._limit

    async def admit(self, target: str) -> None:
        """Raise :class:`ProviderError` if the target's breaker is open."""
        breaker = self._known.get(target, _CLOSED)
        if breaker.open or (breaker.failures >= self._limit and not await self._is_first(target)):
            provider, _, model = target.partition("/")
            metrics.BREAKER_REFUSALS.labels(provider).inc()
            detail = f"circuit breaker of {target} open after {breaker.failures} failures in a row; see"
            detail += " HEADRACE_BREAKER_FAILURES"
            raise provider_failure(
                "provider_circuit_open", provider, model=model, detail=detail, retry_after_s=self._open_s
            )

    async def failed(self, target: str, error: ProviderError, *, counts: bool) -> None:
        """Record a failed call. ``counts``: it is the first failure of its request at this target."""
        metrics.PROVIDER_FAILURES.labels(target.partition("/")[0], error.code).inc()
        if error.code in _REFUSALS:
            await self.succeeded(target)
        elif error.code in _PROVIDER_FAULTS and counts:
            with suppress(BrokerUnavailable):
                breaker = await count_failure(self._client, target, limit=self._limit, open_s=self._open_s)
                self._note(target, breaker)

    async def succeeded(self, target: str) -> None:
        if target in self._known:
            with suppress(BrokerUnavailable):
                await close_breaker(self._client, target)
                self._note(target, _CLOSED)

    async def _is_first(self, target: str) -> bool:
        try:
            return await take_probe(self._client, target, open_s=self._open_s)
        except BrokerUnavailable:
            return True

    def _note(self, target: str, breaker: Breaker) -> None:
        if breaker.open != self._known.get(target, _CLOSED).open:
            provider, _, model = target.partition("/")
            event = "circuit breaker opened" if breaker.open else "circuit breaker closed"
            logger.warning(event, extra={"provider": provider, "model": model, "failures": breaker.failures})
            metrics.breaker_gauge(provider, model).set(breaker.open)
        if breaker == _CLOSED:
            self._known.pop(target, None)
        else:
            self._known[target] = breaker
