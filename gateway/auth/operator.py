"""Who may see everybody's streams, and stop them: the scope ``admin``.

Where nobody is asked who he is, that is whoever sits at this machine: the gateway listens on loopback, the request is
for it by a name of loopback, and no proxy has left a sign in it.
"""

from typing import Annotated, Final

from fastapi import Depends, Request

from gateway.auth.loopback import is_asked_by_its_own_name, is_loopback
from gateway.auth.principal import Principal, Scope
from gateway.state import Gateway
from shared.errors import Forbidden

_OF_PROXIES: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


async def operator(request: Request, gateway: Gateway) -> Principal:
    """Raises :class:`Unauthenticated`, :class:`Forbidden` and :class:`BrokerUnavailable`."""
    principal = await gateway.authenticator.principal(request)
    if gateway.authenticator.is_open:
        if not (is_loopback(gateway.settings.host) and _is_asked_here(request)):
            raise Forbidden("nobody is asked for a key here, so this is shown on the machine itself and nowhere else")
    elif Scope.ADMIN not in principal.scopes:
        raise Forbidden("this is for operators: these credentials lack the scope admin")
    return principal


Operator = Annotated[Principal, Depends(operator)]


def _is_asked_here(request: Request) -> bool:
    return is_asked_by_its_own_name(request) and not _OF_PROXIES & set(request.headers)
