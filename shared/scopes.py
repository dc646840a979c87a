"""Scopes of API keys and JWTs."""

from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """Permission of a caller. ``chat``: create streams. ``read``: read one's own. ``cancel``: stop and delete them.
    ``admin``: see metadata of all streams, without their content, and stop them."""

    CHAT = "chat"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


#: Scopes of credentials that name none.
DEFAULT_SCOPES: Final = frozenset(Scope) - {Scope.ADMIN}
