"""Revocations of all links of a principal, as this gateway has read them from Redis."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from gateway.cache import ExpiringCache
from shared.broker.client import Client
from shared.broker.link_revocations import read_last_revocation, read_link_revocations
from shared.errors import BrokerUnavailable

#: Delay until a revocation is noticed.
_FRESH_S: Final = 2.0
_RENEWED_S: Final = 60.0
#: Time after a revocation was noticed in which a request may still arrive with a key that was revoked before it. The
#: `stream_url` of its response ends with the other links.
_SETTLING_S: Final = 5.0


class LinkRevocations:
    """Numbers of the revocations, by account. They are few, so all are kept: one read of Redis serves all links, and
    an emptied Redis takes back none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._revoked: dict[str, int] = {}
        self._last = 0
        self._last_in_redis: int | None = None
        self._settled = 0
        self._changed_at = 0.0
        self._reads: ExpiringCache[None, Mapping[str, int]] = ExpiringCache(
            self._read, fresh_s=_FRESH_S, renewed_s=_RENEWED_S
        )

    async def read(self) -> Mapping[str, int]:
        """Return the numbers by account, at most two seconds old. Raises :class:`BrokerUnavailable`."""
        return await self._reads.get(None)

    async def last(self) -> int:
        """Return the number for the ticket of a request: that of the last revocation that this gateway noticed some
        seconds ago. An older one is safe, since it only ends more tickets."""
        with suppress(BrokerUnavailable):
            await self.read()
        self._settle()
        return self._settled

    async def last_now(self) -> int:
        """Return the number of the last revocation until this moment. Raises :class:`BrokerUnavailable`."""
        await self._read(None)
        return self._last

    async def _read(self, _: None) -> Mapping[str, int]:
        if await read_last_revocation(self._client) != self._last_in_redis:
            is_first = self._last_in_redis is None
            self._settle()
            read = await read_link_revocations(self._client)
            for account, number in read.items():
                self._revoked[account] = max(number, self._revoked.get(account, 0))
            self._last_in_redis = max(read.values(), default=0)
            self._last = max(self._last, self._last_in_redis)
            self._changed_at = time.monotonic()
            if is_first:
                self._settled = self._last
        return self._revoked

    def _settle(self) -> None:
        if time.monotonic() - self._changed_at >= _SETTLING_S:
            self._settled = self._last
