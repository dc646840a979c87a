"""Authenticates a request: from its credentials to a principal."""

from typing import Final
from urllib.parse import urlsplit

from fastapi import Request

from gateway.auth.api_keys import ApiKeys
from gateway.auth.json_web_tokens import JsonWebTokens
from gateway.auth.loopback import is_addressed_by_loopback_name
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.edge.cors import ANY
from gateway.edge.request_log import current_request_log
from shared.broker.api_keys import PREFIX
from shared.broker.client import Client
from shared.errors import Forbidden, Unauthenticated
from shared.settings import Settings

#: For browsers. The application that logs the user in sets it, ``HttpOnly; Secure; SameSite=Lax``.
COOKIE: Final = "headrace"
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticator:
    def __init__(self, settings: Settings, client: Client) -> None:
        #: True if authentication is disabled.
        self.is_open = not settings.authentication
        self._accepts_remote_clients = bool(settings.auth or settings.trusted_proxies)
        self._origins = frozenset(settings.cors_origins)
        self.api_keys = ApiKeys(client) if "keys" in settings.authentication else None
        self.tokens = JsonWebTokens(settings) if "jwt" in settings.authentication else None

    async def principal(self, request: Request) -> Principal:
        """Return the caller. Raises :class:`Unauthenticated`, :class:`Forbidden` and :class:`BrokerUnavailable`."""
        principal = await self._principal(request)
        if (request_log := current_request_log()) is not None:
            request_log.principal = principal.id
        return principal

    async def _principal(self, request: Request) -> Principal:
        if self.is_open:
            self._check_unauthenticated_page(request)
            return ANONYMOUS
        presented = _in_headers(request)
        if presented is None and (presented := request.cookies.get(COOKIE)):
            self._check_origin(request)
        if not presented:
            raise Unauthenticated("credentials are missing; send Authorization: Bearer, X-Api-Key or the cookie")
        if self.api_keys is not None and presented.startswith(PREFIX):
            return await self.api_keys.principal(presented)
        if self.tokens is not None:
            return await self.tokens.principal(presented)
        raise Unauthenticated("the API key is unknown or was revoked")

    def _check_unauthenticated_page(self, request: Request) -> None:
        """Without credentials, a page of another site would only need the browser of an admitted user."""
        if not self._accepts_remote_clients and not is_addressed_by_loopback_name(request):
            raise Forbidden(
                "authentication is disabled, so requests are only accepted from the same machine, by a loopback name",
                detail="HEADRACE_AUTH is unset; set it to accept other clients, or other host names",
            )
        if request.method in _SAFE_METHODS or request.headers.get("sec-fetch-site") != "cross-site":
            return
        if not self._origins & {ANY, request.headers.get("origin")}:
            raise Forbidden(
                "requests from another site's page are not accepted",
                detail="HEADRACE_CORS_ORIGINS does not list the page's origin",
            )

    def _check_origin(self, request: Request) -> None:
        """Require requests that change something to come from our own origin or an allowed one: a browser sends its
        cookies with requests of any page."""
        origin = request.headers.get("origin")
        if request.method in _SAFE_METHODS or origin is None or origin in self._origins:
            return
        if urlsplit(origin).netloc != request.headers.get("host"):
            raise Forbidden(
                "cookie: not accepted from this page's origin; send Authorization: Bearer",
                detail="HEADRACE_CORS_ORIGINS does not list the page's origin",
            )


def _in_headers(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("x-api-key")
