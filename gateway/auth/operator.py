"""Authorises operators: the scope ``admin`` allows to see and stop all streams.

If authentication is disabled, operators are the users of this machine: the gateway listens on loopback, and the
request shows no sign that it comes from elsewhere (``same_machine.py``).
"""

from typing import Annotated

from fastapi import Depends, Request

from gateway.auth.acting import USER_HEADER
from gateway.auth.principal import Principal
from gateway.auth.same_machine import is_loopback, remote_sign
from gateway.state import Gateway
from shared.errors import Forbidden
from shared.scopes import Scope


async def operator(request: Request, gateway: Gateway) -> Principal:
    """Return the operator. Raises :class:`Unauthenticated`, :class:`Forbidden` and :class:`BrokerUnavailable`."""
    principal = await gateway.authenticator.principal(request)
    if gateway.authenticator.is_open:
        if not (is_loopback(gateway.settings.host) and remote_sign(request.scope) is None):
            raise Forbidden(
                "authentication is disabled, so this page is only available from the same machine",
                detail="HEADRACE_AUTH is none; set it to keys, and create a key with the scope admin",
            )
    elif principal.is_user:
        raise Forbidden(f"{USER_HEADER}: not accepted here, because users see no streams of others; leave it out")
    elif Scope.ADMIN not in principal.scopes:
        raise Forbidden("credentials: lack the scope admin; use a key that has it")
    return principal


Operator = Annotated[Principal, Depends(operator)]
