"""Who may see everybody's streams, and stop them: the scope ``admin``.

Where nobody is asked who he is, that is whoever sits at this machine: the gateway listens on loopback, and the
request is for it by a name of loopback, as neither one that a proxy hands on nor one that a page of another site
has its browser send (DNS rebinding) is.
"""

from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request

from gateway.auth.principal import Principal, Scope
from gateway.state import Gateway
from shared.errors import Forbidden

_OF_PROXIES: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


async def operator(request: Request, gateway: Gateway) -> Principal:
    """Raises :class:`Unauthenticated`, :class:`Forbidden` and :class:`BrokerUnavailable`."""
    principal = await gateway.authenticator.principal(request)
    if gateway.authenticator.is_open:
        if not (_is_loopback(gateway.settings.host) and _is_asked_here(request)):
            raise Forbidden("nobody is asked for a key here, so this is shown on the machine itself and nowhere else")
    elif Scope.ADMIN not in principal.scopes:
        raise Forbidden("this is for operators: these credentials lack the scope admin")
    return principal


Operator = Annotated[Principal, Depends(operator)]


def _is_asked_here(request: Request) -> bool:
    asked = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return _is_loopback(asked) and not _OF_PROXIES & set(request.headers)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
