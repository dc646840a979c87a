"""Authenticates a request: from its credentials to a principal."""

from typing import Final

from fastapi import Request

from gateway.auth.acting import as_user
from gateway.auth.api_keys import UNKNOWN_KEY, ApiKeys
from gateway.auth.json_web_tokens import JsonWebTokens
from gateway.auth.pages import PageCheck
from gateway.auth.principal import ANONYMOUS, Principal
from gateway.edge.request_log import current_request_log
from shared.broker.api_keys import PREFIX
from shared.broker.client import Client
from shared.errors import OriginRefused, Unauthenticated
from shared.settings import Settings

#: For browsers. The application that logs the user in sets it, ``HttpOnly; Secure; SameSite=Lax``.
COOKIE: Final = "headrace"


class Authenticator:
    def __init__(self, settings: Settings, client: Client) -> None:
        #: True if authentication is disabled.
        self.is_open = not settings.authentication
        self._page_check = PageCheck(settings, allows_any=False)
        self.api_keys = ApiKeys(client)
        self._accepts_keys = "keys" in settings.authentication
        self.tokens = JsonWebTokens(settings) if "jwt" in settings.authentication else None

    async def principal(self, request: Request) -> Principal:
        """Return the caller, or the user for whom it acts. Raises :class:`Unauthenticated`, :class:`Forbidden`,
        :class:`InvalidRequest` and :class:`BrokerUnavailable`."""
        in_headers = _in_headers(request)
        principal = await self._principal(request, in_headers)
        principal = as_user(principal, request.headers, by_cookie=in_headers is None)
        if (request_log := current_request_log()) is not None:
            request_log.principal = principal.id
        return principal

    async def _principal(self, request: Request, presented: str | None) -> Principal:
        if self.is_open:
            return ANONYMOUS
        if presented is None and (presented := request.cookies.get(COOKIE)):
            self._check_page(request)
        if not presented:
            raise Unauthenticated(_missing(request))
        if self._accepts_keys and presented.startswith(PREFIX):
            return await self.api_keys.principal(presented)
        if self.tokens is not None:
            return await self.tokens.principal(presented)
        raise Unauthenticated(UNKNOWN_KEY)

    def _check_page(self, request: Request) -> None:
        """Refuse a cookie that a browser sent for another site's page."""
        if self._page_check.is_foreign(request.scope):
            raise OriginRefused(
                "cookie: not accepted from this page's origin; send Authorization: Bearer",
                detail="HEADRACE_CORS_ORIGINS does not list the page's origin",
            )


def _missing(request: Request) -> str:
    if request.headers.get("authorization"):
        return "Authorization: has no bearer token; send it as Authorization: Bearer KEY"
    return "credentials are missing; send Authorization: Bearer, X-Api-Key or the cookie"


def _in_headers(request: Request) -> str | None:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return request.headers.get("x-api-key")
