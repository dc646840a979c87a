"""Refuses a CORS preflight with a reason, in the form of all errors, and logs the setting that the operator needs."""

from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import errors
from gateway.auth.pages import PageCheck
from gateway.edge.cors import METHODS, REQUEST_HEADERS
from shared.errors import OriginRefused
from shared.settings import Settings

_REFUSED: Final = "origin: pages of this origin may not use this server; ask its operator to allow the origin"
_DETAIL: Final = "HEADRACE_CORS_ORIGINS does not list the origin of the page; add it there if the page is yours"
_ALLOWED: Final = frozenset(name.lower() for name in REQUEST_HEADERS) | {
    "accept",
    "accept-language",
    "content-language",
}


def with_preflight_errors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Wrap ``app``, which answers the preflights that may be granted."""
    page_check = PageCheck(settings, allows_any=True)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        refused = await _refusal(scope, page_check) if _is_preflight(scope) else None
        await (app if refused is None else refused)(scope, receive, send)

    return respond


def _is_preflight(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    headers = Headers(scope=scope)
    return "origin" in headers and "access-control-request-method" in headers


async def _refusal(scope: Scope, page_check: PageCheck) -> Response | None:
    request, headers = Request(scope), Headers(scope=scope)
    if page_check.is_foreign(scope):
        return await errors.respond(request, OriginRefused(_REFUSED, detail=_DETAIL, origin=headers["origin"]))
    if headers["access-control-request-method"] not in METHODS:
        problem = f"Access-Control-Request-Method: not allowed for pages; use {', '.join(METHODS)}"
        return errors.error_response(request, 400, "invalid_request", problem)
    wanted = {name.strip().lower() for name in headers.get("access-control-request-headers", "").split(",")}
    if wanted - _ALLOWED - {""}:
        problem = f"Access-Control-Request-Headers: not allowed for pages; use {', '.join(REQUEST_HEADERS)}"
        return errors.error_response(request, 400, "invalid_request", problem)
    return None
