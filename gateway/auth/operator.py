"""Authorises operators: the scope ``admin`` allows to see and stop all streams.

If authentication is disabled, operators are the users of this machine: the gateway listens on loopback, the request
has a loopback name as its host, and no header shows a proxy.
"""

from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.auth.loopback import is_addressed_by_loopback_name, is_loopback
from gateway.auth.principal import Principal
from gateway.state import Gateway
from shared.errors import Forbidden
from shared.scopes import Scope

_PROXY_HEADERS: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


async def operator(request: Request, gateway: Gateway) -> Principal:
    """Return the operator. Raises :class:`Unauthenticated`, :class:`Forbidden` and :class:`BrokerUnavailable`."""
    principal = await gateway.authenticator.principal(request)
    if gateway.authenticator.is_open:
        if not (is_loopback(gateway.settings.host) and _is_direct_local_request(request)):
            raise Forbidden(
                "authentication is disabled, so this page is only available from the same machine",
                detail="HEADRACE_AUTH is unset; set it, and create a key with the scope admin",
            )
    elif Scope.ADMIN not in principal.scopes:
        raise Forbidden("credentials: lack the scope admin; use a key that has it")
    return principal


Operator = Annotated[Principal, Depends(operator)]


def _is_direct_local_request(request: Request) -> bool:
    return is_addressed_by_loopback_name(request) and not _PROXY_HEADERS & set(request.headers)
