"""API keys: looked up in Redis, remembered for a moment."""

import time
from typing import Final

from gateway.auth.principal import Principal, Scope
from shared.broker.api_keys import ApiKey, find_api_key, split_api_key
from shared.broker.client import Client
from shared.errors import Unauthenticated

#: So soon a revoked key is refused, and a new one known where it was asked for before.
_FRESH_S: Final = 2.0
_MOST_REMEMBERED: Final = 10_000


class ApiKeys:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._remembered: dict[str, tuple[float, ApiKey | None]] = {}

    async def principal(self, presented: str) -> Principal:
        """Raises :class:`Unauthenticated`, the same for whatever is wrong, and :class:`BrokerUnavailable`."""
        parts = split_api_key(presented)
        key = await self._find(parts[0]) if parts is not None else None
        if parts is None or key is None or not key.matches(parts[1]):
            raise Unauthenticated("the API key is not one of ours, or was revoked")
        if key.has_expired:
            raise Unauthenticated("the API key has expired")
        return Principal(f"key:{key.name}", frozenset(map(Scope, key.scopes)), key.expires_at, key.id, key.limits)

    async def stands(self, key_id: str) -> bool:
        """Whether the key is there still. Raises :class:`BrokerUnavailable`."""
        return await self._find(key_id) is not None

    async def _find(self, key_id: str) -> ApiKey | None:
        now = time.monotonic()
        found = self._remembered.get(key_id)
        if found is not None and now - found[0] < _FRESH_S:
            return found[1]
        key = await find_api_key(self._client, key_id)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()  # whoever tries that many ids is not worth a better way
        self._remembered[key_id] = (now, key)
        return key
