"""The public keys of a JWKS, by their ids: fetched again before they are old, kept while their server is away."""

import asyncio
import logging
import time
from typing import Final

import jwt

_TIMEOUT_S: Final = 5
#: What comes out of PyJWT and ``json`` for whatever is not a JWKS with a usable key.
_NO_KEYS: Final = (jwt.PyJWTError, ValueError, RecursionError)
_logger: Final = logging.getLogger(__name__)


class NoKeys(Exception):
    """In words."""


class SigningKeys:
    """Older than ``life_s`` they are fetched again, and at once where a token names one that is not among them, so
    that they may be rotated; but once in ``pause_s``, however many unknown ones are named. While their server is
    away, what was had last goes on for ``kept_s``: its outage is none of ours.
    """

    def __init__(self, url: str, *, life_s: float = 300, pause_s: float = 10, kept_s: float = 86_400) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_TIMEOUT_S)
        self._life_s, self._pause_s, self._kept_s = life_s, pause_s, kept_s
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._is_server_away = False
        self._fetching: asyncio.Task[None] | None = None

    def fetch(self) -> None:
        """Waits for the network. Raises :class:`NoKeys`."""
        self._tried_at = time.monotonic()
        try:
            found = self._client.get_signing_keys()
        except (jwt.PyJWKClientError, OSError) as error:
            raise NoKeys(str(error)) from None
        except _NO_KEYS:
            raise NoKeys("what is there is no JWKS with a usable key") from None
        self._keys = {key.key_id: key for key in found if key.key_id is not None}
        self._fetched_at = time.monotonic()

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """None where there is no such key. Raises :class:`NoKeys` where that cannot be known now."""
        if key_id not in self._keys or self._age_s() > self._life_s:
            await self._refresh(must_wait=key_id not in self._keys)
        if self._is_server_away and (key_id not in self._keys or self._age_s() > self._kept_s):
            raise NoKeys("their server is away")
        return self._keys.get(key_id)

    def _age_s(self) -> float:
        return time.monotonic() - self._fetched_at

    async def _refresh(self, *, must_wait: bool) -> None:
        if self._fetching is None and time.monotonic() - self._tried_at >= self._pause_s:
            self._fetching = asyncio.create_task(self._try_to_fetch())
        # Known to be away, it is asked beside those who wait, or each try would cost them all its timeout.
        if self._fetching is not None and (must_wait or not self._is_server_away):
            await asyncio.shield(self._fetching)

    async def _try_to_fetch(self) -> None:
        try:
            await asyncio.to_thread(self.fetch)
        except NoKeys as error:
            self._is_server_away = True
            _logger.warning("the keys that tokens are verified with cannot be fetched: %s", error)
        else:
            self._is_server_away = False
        finally:
            self._fetching = None
