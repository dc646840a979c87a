"""How much one account may ask for. An account is what limits are counted for: one principal's, whichever gateway."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """0 is no limit. A minute is this second and the 59 before it; a day is one of UTC."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent_streams: int = 0

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in LIMIT_NAMES)

    def changed(self, changes: Mapping[str, int]) -> "Limits":
        """With some of them replaced; a name that nobody knows (of another version) changes nothing."""
        if not changes:
            return self
        return replace(self, **{name: changes[name] for name in LIMIT_NAMES if name in changes})

    @property
    def most_tokens(self) -> int:
        """That one request can ever be given; 0 for any number."""
        return min((n for n in (self.tokens_per_minute, self.tokens_per_day) if n), default=0)


#: In the order in which the script of creation takes them.
LIMIT_NAMES: Final = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request takes of its account's limits: itself, a stream, and ``tokens`` until it is known how many."""

    account: str
    limits: Limits
    tokens: int


def account_of(principal: str) -> str:
    """As keys name it: a principal may be anything, and is nobody's business."""
    return hashlib.sha256(principal.encode()).hexdigest()[:32]
