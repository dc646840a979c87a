"""The checks of a gateway without authentication, for every path alike: no route can forget them.

If ``HEADRACE_AUTH`` is unset, only direct requests from this machine are accepted. With ``none``, too, another site's
page gets nothing: it would only need the browser of a user that the network admits.
"""

from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import errors
from gateway.auth.pages import PageCheck
from gateway.auth.same_machine import remote_sign
from shared.errors import Forbidden, NotLocal, OriginRefused
from shared.settings import Settings

#: For the operator, at the start.
LOCAL: Final = (
    "HEADRACE_AUTH is unset: only requests from this machine are accepted. Other users of the machine, and a proxy"
    " that hides itself, are kept out only by keys or jwt"
)
PUBLIC: Final = (
    "HEADRACE_AUTH is none: every client that can reach this address is accepted; keys or jwt keep others out"
)

_CHECKED: Final = frozenset({"http", "websocket"})
# The next two messages name settings: clients of such a gateway are meant to be its operator.
_LOCAL_ONLY: Final = (
    "authentication is disabled, so requests are only accepted directly from the same machine, by a loopback name;"
    " set HEADRACE_AUTH to accept others"
)
_OWN_PAGE_ONLY: Final = (
    "authentication is disabled, so requests of other sites' pages are not accepted; set HEADRACE_AUTH, or list the"
    " page's origin in HEADRACE_CORS_ORIGINS"
)
_PAGE_REFUSED: Final = "requests of other sites' pages are not accepted"
_PAGE_DETAIL: Final = "HEADRACE_AUTH does not ask for credentials, and HEADRACE_CORS_ORIGINS does not list the page"


def with_open_gateway_checks(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Wrap ``app``; with authentication, return it unchanged."""
    return app if settings.authentication else _OpenGateway(app, settings)


class _OpenGateway:
    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._is_local = not settings.auth
        self._page_check = PageCheck(settings, allows_any=True, is_local=self._is_local)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in _CHECKED and (refusal := self._refusal(scope)) is not None:
            request = Request({"method": "GET", **scope, "type": "http"})
            response = await errors.respond(request, refusal)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Forbidden | None:
        if self._is_local and (sign := remote_sign(scope)) is not None:
            return NotLocal(_LOCAL_ONLY, detail=f"HEADRACE_AUTH is unset, and the request has {sign}")
        if self._page_check.is_foreign(scope):
            message = _OWN_PAGE_ONLY if self._is_local else _PAGE_REFUSED
            return OriginRefused(message, detail=_PAGE_DETAIL, origin=Headers(scope=scope).get("origin"))
        return None
