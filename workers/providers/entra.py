"""Tokens of Microsoft Entra ID, by which Azure OpenAI accepts the identity of a worker instead of a key."""

import asyncio
import time
from typing import Final

import httpx2

from workers.providers.errors import TokenUnavailable

_SCOPE: Final = "https://cognitiveservices.azure.com/.default"
#: A token is renewed this long before its end; until then it stays in use if the renewal fails.
_MARGIN_S: Final = 300.0
_TIMEOUT_S: Final = 30.0


class EntraTokens:
    """Sets the token of each request of one provider."""

    def __init__(self) -> None:
        self._token = ""
        self._expires_at = 0.0
        self._lock = asyncio.Lock()

    async def authorize(self, request: httpx2.Request) -> None:
        """Set the header of a request. Raises :class:`TokenUnavailable`."""
        if time.time() >= self._expires_at - _MARGIN_S:
            async with self._lock:
                if time.time() >= self._expires_at - _MARGIN_S:
                    await self._renew()
        request.headers["Authorization"] = f"Bearer {self._token}"

    async def _renew(self) -> None:
        from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415  optional, and slow to load

        try:
            async with asyncio.timeout(_TIMEOUT_S), DefaultAzureCredential() as credential:
                token = await credential.get_token(_SCOPE)
        except Exception as error:  # noqa: BLE001  its exceptions have many classes, and quote the answer of the service
            if time.time() >= self._expires_at:
                raise TokenUnavailable(type(error).__name__) from None
        else:
            self._token, self._expires_at = token.token, float(token.expires_on)
