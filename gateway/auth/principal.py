"""A caller, and what the caller may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from shared.errors import Forbidden


class Scope(StrEnum):
    """``chat``: ask for answers. ``read``: read one's own. ``cancel``: stop them, and delete them. ``admin``: see
    that others' streams are there, though not what is in them, and stop them; it has to be named."""

    CHAT = "chat"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


SCOPES: Final = frozenset(Scope)
#: Of who has not been given fewer.
ALL_SCOPES: Final = SCOPES - {Scope.ADMIN}


@dataclass(frozen=True, slots=True)
class Principal:
    """``id`` is whose streams are whose; several keys may share one. ``expires_at`` (Unix seconds) and ``key_id`` say
    when the right ends: at a time, with a key, or never. ``limits``: those that are not as for all."""

    id: str
    scopes: frozenset[Scope] = ALL_SCOPES
    expires_at: float | None = None
    key_id: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)

    def need(self, scope: Scope) -> None:
        """Raises :class:`Forbidden`."""
        if scope not in self.scopes:
            raise Forbidden(f"these credentials may not {scope}; they lack the scope {scope}")


#: Where there is no authentication, everybody is the same one.
ANONYMOUS: Final = Principal("anonymous")
