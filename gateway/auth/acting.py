"""Callers that act for their users: a back end with one key, and a principal for each of its users.

The user is a principal of its own, ``key:NAME/USER``: it owns its streams, chats, links and idempotency keys, and
has limits of its own. The grant stays that of the key or token: its models, denied fields, budgets, expiry and
revocation.
"""

from dataclasses import replace
from typing import Final

from starlette.datastructures import Headers

from gateway.auth.principal import ANONYMOUS, Principal
from shared.errors import Forbidden, InvalidRequest
from shared.principal_ids import LONGEST_USER, is_user, user_principal
from shared.scopes import Scope

USER_HEADER: Final = "X-Headrace-User"
#: Scopes of the key itself, which its users do not have.
_OWN: Final = frozenset({Scope.ADMIN, Scope.ACT_FOR})
_PROBLEM: Final = (
    f"must have 1 to {LONGEST_USER} visible ASCII characters without slash and comma; encode others, such as %2F"
)


def as_user(caller: Principal, headers: Headers, *, by_cookie: bool) -> Principal:
    """Return the user that the request names, or the caller itself if it names none. ``by_cookie``: the credentials
    came in the cookie. Raises :class:`Forbidden` and :class:`InvalidRequest`."""
    users = headers.getlist(USER_HEADER)
    if not users:
        return caller
    if caller is ANONYMOUS:
        # Principals that every caller can choose would look like a separation, and be none.
        raise Forbidden(
            f"{USER_HEADER}: not accepted, because authentication is disabled; leave it out",
            detail="HEADRACE_AUTH asks for no credentials; set it to keys, and create a key with the scope act_for",
        )
    if by_cookie:
        raise Forbidden(f"{USER_HEADER}: not accepted with the cookie of a browser; send Authorization: Bearer")
    if Scope.ACT_FOR not in caller.scopes:
        raise Forbidden(f"{USER_HEADER}: requires the scope act_for; use a key that has it, or leave the header out")
    if len(users) > 1:
        raise InvalidRequest(f"{USER_HEADER}: sent {len(users)} times; send it once")
    if not is_user(users[0]):
        raise InvalidRequest(f"{USER_HEADER}: {_PROBLEM}")
    return replace(caller, id=user_principal(caller.id, users[0]), scopes=caller.scopes - _OWN, is_user=True)
