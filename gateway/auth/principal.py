"""The principal: an authenticated caller with its scopes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from shared.errors import Forbidden


class Scope(StrEnum):
    """``chat``: create streams. ``read``: read one's own. ``cancel``: stop and delete them. ``admin``: see metadata
    of all streams, without their content, and stop them; never granted by default."""

    CHAT = "chat"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


SCOPES: Final = frozenset(Scope)
#: The default scopes.
ALL_SCOPES: Final = SCOPES - {Scope.ADMIN}


@dataclass(frozen=True, slots=True)
class Principal:
    """``id``: the owner of streams; several keys may share one. ``expires_at`` (Unix seconds) and ``key_id`` limit
    the grant: it ends at that time or with that key, or never. ``limits``: overrides of the server-wide ones."""

    id: str
    scopes: frozenset[Scope] = ALL_SCOPES
    expires_at: float | None = None
    key_id: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def need(self, scope: Scope) -> None:
        """Raise :class:`Forbidden` if the scope is missing."""
        if scope not in self.scopes:
            raise Forbidden(f"these credentials lack the scope {scope}")


#: The principal of every request if authentication is disabled.
ANONYMOUS: Final = Principal("anonymous")
