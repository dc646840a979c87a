"""API keys: looked up in Redis, cached briefly."""

from functools import partial
from typing import Final

from gateway.auth.principal import Principal
from gateway.cache import ExpiringCache
from shared.broker.api_keys import find_api_key, split_api_key, was_revoked
from shared.broker.client import Client
from shared.errors import Unauthenticated
from shared.model_patterns import ModelPatterns
from shared.principal_ids import key_principal
from shared.scopes import Scope

#: Delay until a revoked key is refused, and until a new key works if it was tried before.
_FRESH_S: Final = 2.0
UNKNOWN_KEY: Final = "the API key is unknown or was revoked; check it, or use another one"


class ApiKeys:
    """Lookups of API keys. Every method raises :class:`BrokerUnavailable`."""

    def __init__(self, client: Client) -> None:
        self._keys = ExpiringCache(partial(find_api_key, client), fresh_s=_FRESH_S)
        self._revoked = ExpiringCache(partial(was_revoked, client), fresh_s=_FRESH_S)

    async def principal(self, presented: str) -> Principal:
        """Return the key's principal. Raises :class:`Unauthenticated`, with one message for unknown and wrong
        keys."""
        parts = split_api_key(presented)
        key = await self._keys.get(parts[0]) if parts is not None else None
        if parts is None or key is None or not key.matches(parts[1]):
            raise Unauthenticated(UNKNOWN_KEY)
        if key.has_expired:
            raise Unauthenticated("the API key has expired; use another one")
        return Principal(
            key_principal(key.name),
            frozenset(map(Scope, key.scopes)),
            key.expires_at,
            key_id=key.id,
            limits=key.limits,
            models=None if key.models is None else ModelPatterns(key.models),
            denied=tuple(key.denied),
            webhook_url=key.webhook_url,
            budgets=key.budgets,
            is_batch=key.priority == "batch",
        )

    async def was_revoked(self, key_id: str) -> bool:
        revoked = await self._revoked.get(key_id)
        if revoked:
            self._keys.forget(key_id)
        return revoked
