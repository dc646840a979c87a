"""API keys of the providers: the one that a request prefers, and those that are paused.

Requests with the same prefix prefer the same key, since a provider keeps its prompt caches by account. A key whose
rate is limited is paused for one model; a key that the provider refuses is paused until the configuration changes.
The only key of a provider is paused too: requests go to their fallbacks first, and are tried with it for the rest.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from shared.broker.client import Client
from shared.broker.paused_keys import Pauses, now_ms, pause_key, pause_of, read_pauses, resume_key
from shared.errors import BrokerUnavailable, ProviderError
from shared.rendezvous import rank
from workers.providers.endpoint import NO_KEY, ApiKey, Endpoint
from workers.providers.errors import provider_failure

logger = logging.getLogger(__name__)

#: Pause after a 429 without ``Retry-After``, if there are other keys.
_DEFAULT_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 24 * 3600.0
Choice = ApiKey | None  # None: the server needs no key


class Keys:
    """The keys of this worker's providers, with a local copy of the pauses that all workers share. It is at most a
    second old, so that no request waits for Redis."""

    def __init__(self, client: Client, endpoints: Mapping[str, Endpoint]) -> None:
        self._client = client
        self._endpoints = endpoints
        self._pauses: dict[str, Pauses] = {}
        #: Ends that this worker has set since the last read began, by provider and pause: its reply may be older.
        self._set_since: dict[tuple[str, str], int] = {}
        self._was_read = False

    async def read(self) -> None:
        """Read the pauses; call it every second. Without Redis the last ones stay until they end."""
        with suppress(BrokerUnavailable):
            await self._read()

    def usable(self, provider: str, model: str, prefix: str | None) -> list[Choice]:
        """Return the keys that are not paused for a model, the preferred one first. If the provider refuses all, the
        preferred one is tried again. Raises :class:`ProviderError` if the rate of all others is limited."""
        keys = sorted(self._keys_of(provider), key=lambda key: rank(_id(key), prefix), reverse=True)
        if usable := [key for key in keys if not self._ends_of(provider, model, key)]:
            return usable
        accepted = [key for key in keys if not self._end_of(provider, pause_of(_id(key)))]
        if not accepted:
            return keys[:1]
        wait_s = (min(self._ends_of(provider, model, key) for key in accepted) - now_ms()) / 1000
        detail = f"all keys of {provider} are paused for {model!r} after HTTP 429; check the accounts' limits"
        raise provider_failure(
            "provider_rate_limited", provider, model=model, detail=detail, retry_after_s=max(0.0, wait_s)
        )

    def with_id(self, provider: str, key_id: str) -> Choice:
        """Return a key of a provider by its id; None for the empty id of a server that needs none. Raises
        :class:`ProviderError` if this worker has no such key."""
        if not key_id:
            return None
        for key in self._keys_of(provider):
            if key is not None and key.id == key_id:
                return key
        detail = f"this worker lacks the key {key_id} of {provider}, with which the answer was begun"
        raise provider_failure("provider_not_configured", provider, detail=detail)

    def has_usable(self, provider: str, model: str) -> bool:
        """Return True if a key is not paused for a model."""
        return any(not self._ends_of(provider, model, key) for key in self._keys_of(provider))

    async def failed(self, provider: str, model: str, key: Choice, error: ProviderError) -> bool:
        """Pause a key that the provider refuses or limits. Return True if another key may succeed."""
        if error.code not in {"provider_auth", "provider_rate_limited"}:
            return False
        has_others = len(self._keys_of(provider)) > 1
        if error.code == "provider_auth":
            if error.refuses_key and key is not None:
                await self._pause(provider, pause_of(_id(key)), _LONGEST_PAUSE_S, error)
            return has_others
        pause_s = error.retry_after_s
        if pause_s is None and has_others:
            pause_s = _DEFAULT_PAUSE_S
        if pause_s:
            await self._pause(provider, pause_of(_id(key), model), min(pause_s, _LONGEST_PAUSE_S), error)
        return has_others

    async def succeeded(self, provider: str, key: Choice) -> None:
        """End the pause of a key that the provider accepts again."""
        pause = pause_of(_id(key))
        if self._end_of(provider, pause):
            self._set(provider, pause, 0)
            logger.info("key resumed", extra={"provider": provider, "key": _id(key)})
            with suppress(BrokerUnavailable):
                await resume_key(self._client, self._hash_of(provider), provider, pause)

    async def _pause(self, provider: str, pause: str, pause_s: float, error: ProviderError) -> None:
        until_ms, was_paused = now_ms() + round(pause_s * 1000), bool(self._end_of(provider, pause))
        self._set(provider, pause, until_ms)
        key_id, _, model = pause.partition(" ")
        if not was_paused:
            line = {
                "provider": provider,
                "key": key_id,
                "model": model or None,
                "pause_s": pause_s,
                "code": error.code,
            }
            logger.warning("key paused", extra=line)
        with suppress(BrokerUnavailable):
            await pause_key(self._client, self._hash_of(provider), provider, pause, until_ms=until_ms)

    def _set(self, provider: str, pause: str, until_ms: int) -> None:
        self._pauses.setdefault(provider, {})[pause] = until_ms
        self._set_since[provider, pause] = until_ms

    async def _read(self) -> None:
        names: dict[str, list[str]] = {}
        for name, endpoint in self._endpoints.items():
            names.setdefault(endpoint.configuration.hash, []).append(name)
        self._set_since.clear()
        for configuration_hash, providers in names.items():
            self._pauses |= await read_pauses(self._client, configuration_hash, providers)
            for (provider, pause), until_ms in self._set_since.items():
                self._pauses.setdefault(provider, {})[pause] = until_ms
        if not self._was_read:
            await self._forget_others()
            self._was_read = True

    async def _forget_others(self) -> None:
        """End the pauses of keys that this worker lacks: they were replaced in the environment, which leaves the
        configuration the same. A worker that still has one pauses it again."""
        for provider, pauses in self._pauses.items():
            ids = {_id(key) for key in self._keys_of(provider)}
            for pause in [each for each in pauses if each.partition(" ")[0] not in ids]:
                del pauses[pause]
                await resume_key(self._client, self._hash_of(provider), provider, pause)

    def _keys_of(self, provider: str) -> Sequence[Choice]:
        endpoint = self._endpoints.get(provider)
        return endpoint.keys if endpoint is not None and endpoint.keys else (None,)

    def _hash_of(self, provider: str) -> str:
        return self._endpoints[provider].configuration.hash

    def _ends_of(self, provider: str, model: str, key: Choice) -> int:
        """Return the end of a key's pauses for a model, in Unix milliseconds; 0 if there is none."""
        pauses = pause_of(_id(key)), pause_of(_id(key), model)
        return max(self._end_of(provider, pause) for pause in pauses)

    def _end_of(self, provider: str, pause: str) -> int:
        end = self._pauses.get(provider, {}).get(pause, 0)
        return end if end > now_ms() else 0


def _id(key: Choice) -> str:
    return NO_KEY if key is None else key.id
