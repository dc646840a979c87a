"""Revocations of all links of a principal, as this gateway has read them from Redis."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from gateway.cache import ExpiringCache
from shared.broker.client import Client
from shared.broker.link_revocations import read_last_revocation, read_link_revocations
from shared.errors import BrokerUnavailable

#: Delay until a revocation is noticed.
_FRESH_S: Final = 2.0


class LinkRevocations:
    """Numbers of the revocations, by account. They are few, so all are kept: one read of Redis serves all links, and
    an emptied Redis takes back none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._revoked: dict[str, int] = {}
        self._last = 0
        self._last_in_redis = 0
        self._reads: ExpiringCache[None, Mapping[str, int]] = ExpiringCache(self._read, fresh_s=_FRESH_S)

    async def read(self) -> Mapping[str, int]:
        """Return the numbers by account, at most two seconds old. Raises :class:`BrokerUnavailable`."""
        return await self._reads.get(None)

    async def last(self) -> int:
        """Return the number for a new ticket: that of the last revocation that this gateway has read. An older one is
        safe, since it only ends more tickets."""
        with suppress(BrokerUnavailable):
            await self.read()
        return self._last

    async def last_now(self) -> int:
        """Return the number of the last revocation until this moment. Raises :class:`BrokerUnavailable`."""
        await self._read(None)
        return self._last

    async def _read(self, _: None) -> Mapping[str, int]:
        if await read_last_revocation(self._client) != self._last_in_redis:
            read = await read_link_revocations(self._client)
            for account, number in read.items():
                self._revoked[account] = max(number, self._revoked.get(account, 0))
            self._last_in_redis = max(read.values(), default=0)
            self._last = max(self._last, self._last_in_redis)
        return self._revoked
