"""Revocations of all links of a principal, as this gateway has read them from Redis."""

from collections.abc import Mapping
from typing import Final

from gateway.cache import ExpiringCache
from shared.broker.client import Client
from shared.broker.link_revocations import read_link_revocations

#: Delay until a revocation is noticed.
_FRESH_S: Final = 2.0
#: Revocations this much older than the last one are read again, in case the clock of Redis was set back.
_OVERLAP_MS: Final = 600_000


class LinkRevocations:
    """Times up to which the links of an account are refused. They are few, so all are kept: one read of Redis serves
    all links, and an emptied Redis takes back none."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._revoked: dict[str, int] = {}
        self._reads: ExpiringCache[None, Mapping[str, int]] = ExpiringCache(self._read, fresh_s=_FRESH_S)

    async def read(self) -> Mapping[str, int]:
        """Return the times in milliseconds, by account. Raises :class:`BrokerUnavailable`."""
        return await self._reads.get(None)

    async def _read(self, _: None) -> Mapping[str, int]:
        latest = max(self._revoked.values(), default=0)
        self._revoked |= await read_link_revocations(self._client, max(0, latest - _OVERLAP_MS))
        return self._revoked
