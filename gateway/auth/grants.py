"""The right of a live connection, which may end before the connection does: with a ticket, a token or a key."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from gateway.auth.api_keys import ApiKeys
from gateway.auth.principal import Principal
from shared.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Grant:
    """To one stream. ``owner`` is None where a ticket was shown, which is good whoever's the stream is. ``key_id``:
    of the key that was shown, or that made the ticket."""

    owner: str | None
    expires_at: float | None = None
    key_id: str | None = None

    @classmethod
    def of(cls, principal: Principal) -> "Grant":
        return cls(principal.id, principal.expires_at, principal.key_id)


class GrantEnded(Exception):
    """Not an answer: it cuts a live connection, whose client then is told 401 when it comes back."""


class LiveGrants:
    def __init__(self, api_keys: ApiKeys | None) -> None:
        self._api_keys = api_keys
        self._watched: dict[asyncio.Future[None], Grant] = {}

    @contextmanager
    def watch(self, right: Grant) -> Iterator[asyncio.Future[None]]:
        """The future is done when the right has ended."""
        ended = asyncio.get_running_loop().create_future()
        if right.expires_at is not None or right.key_id is not None:
            self._watched[ended] = right
        try:
            yield ended
        finally:
            self._watched.pop(ended, None)

    async def run(self) -> None:
        """For ever. While Redis does not answer, nothing is revoked."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            revoked = await self._revoked({right.key_id for right in self._watched.values() if right.key_id})
            now = time.time()
            for ended, right in list(self._watched.items()):
                has_expired = right.expires_at is not None and right.expires_at <= now
                if (has_expired or right.key_id in revoked) and not ended.done():
                    ended.set_result(None)

    async def _revoked(self, key_ids: set[str]) -> set[str]:
        if self._api_keys is None:
            return set()
        revoked = set()
        try:
            for key_id in key_ids:
                if await self._api_keys.was_revoked(key_id):
                    revoked.add(key_id)
        except BrokerUnavailable:
            logger.debug("keys cannot be looked up")
        return revoked
