"""Scopes of API keys and JWTs."""

from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """Permission of a caller. ``chat``: create streams. ``read``: read one's own. ``cancel``: stop and delete them.
    ``admin``: see metadata of all streams, without their content, and stop them. ``act_for``: be a user of one's own,
    whom the request names."""

    CHAT = "chat"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"
    ACT_FOR = "act_for"


#: Scopes of credentials that name none.
DEFAULT_SCOPES: Final = frozenset(Scope) - {Scope.ADMIN, Scope.ACT_FOR}
