"""The principal: an authenticated caller with its scopes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.budgets import NO_BUDGETS, Budgets
from shared.errors import Forbidden
from shared.model_patterns import ModelPatterns
from shared.principal_ids import ANONYMOUS_ID
from shared.scopes import DEFAULT_SCOPES, Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. ``id``: the owner of streams; several keys may share one. ``expires_at`` (Unix
    seconds) and ``key_id`` limit the grant: it ends at that time or with that key, or never. ``leeway_s``: time after
    ``expires_at`` in which the credentials are still accepted, since clocks differ. ``limits``: overrides of the
    server-wide ones. ``models``: the allowed ones; None means all. ``denied``: paths of fields that requests may not
    have (``shared/denied_fields.py``). ``webhook_url``: receiver of the endings of streams whose requests name none.
    ``budgets``: of its API key. ``is_user``: True for a user for whom the credentials act (``acting.py``).
    ``is_batch``: all its streams are batch ones."""

    id: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    expires_at: float | None = None
    leeway_s: float = 0
    key_id: str | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    models: ModelPatterns | None = None
    denied: tuple[str, ...] = ()
    webhook_url: str | None = None
    is_user: bool = False
    budgets: Budgets = NO_BUDGETS
    is_batch: bool = False

    def need(self, scope: Scope) -> None:
        """Raise :class:`Forbidden` if the scope is missing."""
        if scope not in self.scopes:
            raise Forbidden(f"credentials: lack the scope {scope}; use a key that has it")


#: The principal of every request if authentication is disabled.
ANONYMOUS: Final = Principal(ANONYMOUS_ID)
