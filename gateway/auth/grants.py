"""Grants of live connections. A grant may end before its connection does: with a ticket, a token or a key."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from gateway.auth.api_keys import ApiKeys
from gateway.auth.link_revocations import LinkRevocations
from gateway.auth.principal import Principal
from shared.errors import BrokerUnavailable
from shared.polling import next_poll
from shared.principal_ids import actor_of
from shared.rate_limits import account_of

logger = logging.getLogger(__name__)

_CHECK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Grant:
    """Access to one stream. ``owner``: None for a ticket, which grants access regardless of the stream's owner.
    ``key_id``: the API key that was sent, or that made the ticket. ``revocation``: number of the last revocation of
    links before a ticket was made. ``accounts``: those that may revoke it, known once the stream was read."""

    owner: str | None
    expires_at: float | None = None
    key_id: str | None = None
    revocation: int = 0
    accounts: tuple[str, ...] = ()

    @classmethod
    def of(cls, principal: Principal) -> "Grant":
        expires_at = None if principal.expires_at is None else principal.expires_at + principal.leeway_s
        return cls(principal.id, expires_at, principal.key_id)

    def for_stream_of(self, owner: str) -> "Grant":
        """Return the grant with its accounts, if it is a ticket: only the owner of a stream makes tickets for it, or
        credentials that act for the owner."""
        if self.owner is not None:
            return self
        principals = (owner,) if (actor := actor_of(owner)) is None else (owner, actor)
        return replace(self, accounts=tuple(map(account_of, principals)))

    def is_revoked(self, revoked_links: Mapping[str, int]) -> bool:
        """Return True for a ticket of which an account has revoked its links since."""
        return any(self.revocation < revoked_links.get(account, 0) for account in self.accounts)


class GrantEnded(Exception):
    """The grant of a live connection ended: the connection is cut, and its client gets 401 when it reconnects."""


class LiveGrants:
    """Grants of all live connections. Notifies a connection when its grant ends."""

    def __init__(self, api_keys: ApiKeys | None, link_revocations: LinkRevocations | None) -> None:
        self._api_keys = api_keys
        self._link_revocations = link_revocations
        self._watched: dict[asyncio.Future[None], Grant] = {}

    @contextmanager
    def watch(self, grant: Grant) -> Iterator[asyncio.Future[None]]:
        """Watch a grant; the future is done when the grant has ended."""
        ended = asyncio.get_running_loop().create_future()
        if grant.expires_at is not None or grant.key_id is not None:
            self._watched[ended] = grant
        try:
            yield ended
        finally:
            self._watched.pop(ended, None)

    async def run(self) -> None:
        """Run until cancelled: end the grants of expired tickets and tokens, and of revoked keys and links. During a
        Redis outage, nothing is revoked."""
        while True:
            await next_poll(_CHECK_EVERY_S)
            revoked = await self._revoked_keys({grant.key_id for grant in self._watched.values() if grant.key_id})
            revoked_links = await self._read_revoked_links()
            now = time.time()
            for ended, grant in list(self._watched.items()):
                has_expired = grant.expires_at is not None and grant.expires_at <= now
                if (has_expired or grant.key_id in revoked or grant.is_revoked(revoked_links)) and not ended.done():
                    ended.set_result(None)

    async def _revoked_keys(self, key_ids: set[str]) -> set[str]:
        if self._api_keys is None:
            return set()
        revoked = set()
        try:
            for key_id in key_ids:
                if await self._api_keys.was_revoked(key_id):
                    revoked.add(key_id)
        except BrokerUnavailable:
            logger.debug("API key lookup failed")
        return revoked

    async def _read_revoked_links(self) -> Mapping[str, int]:
        if self._link_revocations is None or not any(grant.accounts for grant in self._watched.values()):
            return {}
        try:
            return await self._link_revocations.read()
        except BrokerUnavailable:
            logger.debug("link revocation lookup failed")
            return {}
