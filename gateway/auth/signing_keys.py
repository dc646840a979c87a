"""Public keys of a JWKS, by key id: refreshed before they are old, kept during an outage of their server."""

import asyncio
import logging
import time
from typing import Final

import jwt

_TIMEOUT_S: Final = 5
#: Errors of PyJWT and ``json`` for anything but a JWKS with a usable key.
_JWKS_ERRORS: Final = (jwt.PyJWTError, ValueError, RecursionError)
logger = logging.getLogger(__name__)


class SigningKeysUnavailable(Exception):
    """The keys cannot be fetched; the message has the cause."""


class SigningKeys:
    """A cached JWKS.

    Keys older than ``life_s`` are fetched again. So are they if a token names an unknown key, which allows rotation,
    but at most once in ``pause_s``, however many unknown keys are named. During an outage of the server, the last
    keys stay valid for ``kept_s``.
    """

    def __init__(self, url: str, *, life_s: float = 300, pause_s: float = 10, kept_s: float = 86_400) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_TIMEOUT_S)
        self._life_s, self._pause_s, self._kept_s = life_s, pause_s, kept_s
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._server_is_down = False
        self._fetching: asyncio.Task[None] | None = None

    def fetch(self) -> None:
        """Fetch the keys; blocks on the network. Raises :class:`SigningKeysUnavailable`."""
        self._tried_at = time.monotonic()
        try:
            found = self._client.get_signing_keys()
        except (jwt.PyJWKClientError, OSError) as error:
            raise SigningKeysUnavailable(str(error)) from None
        except _JWKS_ERRORS:
            raise SigningKeysUnavailable("the response is not a JWKS with a usable key") from None
        self._keys = {key.key_id: key for key in found if key.key_id is not None}
        self._fetched_at = time.monotonic()

    async def find(self, key_id: str) -> jwt.PyJWK | None:
        """Return the key, or None if it is unknown. Raises :class:`SigningKeysUnavailable` during an outage."""
        if key_id not in self._keys or self._age_s() > self._life_s:
            await self._refresh(must_wait=key_id not in self._keys)
        if self._server_is_down and (key_id not in self._keys or self._age_s() > self._kept_s):
            raise SigningKeysUnavailable("the JWKS server is unavailable")
        return self._keys.get(key_id)

    def _age_s(self) -> float:
        return time.monotonic() - self._fetched_at

    async def _refresh(self, *, must_wait: bool) -> None:
        if self._fetching is None and time.monotonic() - self._tried_at >= self._pause_s:
            self._fetching = asyncio.create_task(self._try_to_fetch())
        # During an outage, callers with a cached key do not wait: each attempt would cost them its whole timeout.
        if self._fetching is not None and (must_wait or not self._server_is_down):
            await asyncio.shield(self._fetching)

    async def _try_to_fetch(self) -> None:
        try:
            await asyncio.to_thread(self.fetch)
        except SigningKeysUnavailable as error:
            self._server_is_down = True
            fields = {"setting": "HEADRACE_JWT_JWKS_URL", "detail": str(error)}
            logger.warning("signing keys unavailable", extra=fields)
        else:
            self._server_is_down = False
        finally:
            self._fetching = None
