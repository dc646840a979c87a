"""API keys: looked up in Redis, cached briefly."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from gateway.auth.principal import Principal, Scope
from shared.broker.api_keys import find_api_key, split_api_key, was_revoked
from shared.broker.client import Client
from shared.errors import Unauthenticated

#: Delay until a revoked key is refused, and until a new key works if it was tried before.
_FRESH_S: Final = 2.0
_MOST_REMEMBERED: Final = 10_000

Found = TypeVar("Found")


class ApiKeys:
    """Lookups of API keys. Every method raises :class:`BrokerUnavailable`."""

    def __init__(self, client: Client) -> None:
        self._keys = _Remembered(client, find_api_key)
        self._revoked = _Remembered(client, was_revoked)

    async def principal(self, presented: str) -> Principal:
        """Return the key's principal. Raises :class:`Unauthenticated`, with one message for unknown and wrong
        keys."""
        parts = split_api_key(presented)
        key = await self._keys.look_up(parts[0]) if parts is not None else None
        if parts is None or key is None or not key.matches(parts[1]):
            raise Unauthenticated("the API key is unknown or was revoked")
        if key.has_expired:
            raise Unauthenticated("the API key has expired")
        return Principal(f"key:{key.name}", frozenset(map(Scope, key.scopes)), key.expires_at, key.id, key.limits)

    async def was_revoked(self, key_id: str) -> bool:
        revoked = await self._revoked.look_up(key_id)
        if revoked:
            self._keys.forget(key_id)
        return revoked


class _Remembered(Generic[Found]):
    """Results of a lookup, kept for a moment."""

    def __init__(self, client: Client, find: Callable[[Client, str], Awaitable[Found]]) -> None:
        self._client = client
        self._find = find
        self._found: dict[str, tuple[float, Found]] = {}

    async def look_up(self, key_id: str) -> Found:
        now = time.monotonic()
        known = self._found.get(key_id)
        if known is not None and now - known[0] < _FRESH_S:
            return known[1]
        found = await self._find(self._client, key_id)
        if len(self._found) >= _MOST_REMEMBERED:
            self._found.clear()  # so many unknown ids are an attack: a simple bound is enough
        self._found[key_id] = (now, found)
        return found

    def forget(self, key_id: str) -> None:
        self._found.pop(key_id, None)
