"""Limits of a principal, and the demand of one request.

An account is the usage of one principal over all gateways.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from shared.budgets import Reservation

#: Limit of a principal's stored bytes if none is set: the smaller of this and a quarter of Redis' maxmemory.
DEFAULT_STORED_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one account; 0 = unlimited. A minute is this second and the 59 before it; a day is a UTC day.
    ``stored_bytes``: of requests and answers that are kept; None means the default (docs/limits.md)."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    concurrent_streams: int = 0
    stored_bytes: int | None = None

    def changed(self, changes: Mapping[str, int]) -> "Limits":
        """Return a copy with some limits replaced. Unknown names, perhaps of another version, are ignored."""
        if not changes:
            return self
        return replace(self, **{name: changes[name] for name in LIMIT_NAMES if name in changes})

    @property
    def has_rates(self) -> bool:
        """True if any limit but that of stored bytes is set: then the desk counts each stream."""
        return any((self.requests_per_minute, self.tokens_per_minute, self.tokens_per_day, self.concurrent_streams))

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens that one request can ever get; 0 = unlimited."""
        return min((n for n in (self.tokens_per_minute, self.tokens_per_day) if n), default=0)


#: In the order of the arguments of admit.lua.
LIMIT_NAMES: Final = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True)
class TargetLimits:
    """Limits of one provider, over all processes; 0 = unlimited."""

    concurrent_streams: int = 0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0


#: In the order of the arguments of take_slot.lua and unpark.lua.
TARGET_LIMIT_NAMES: Final = tuple(field.name for field in fields(TargetLimits))
UNLIMITED: Final = TargetLimits()


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand of one request: itself, a stream, and ``tokens``, which are reserved until the real usage is known; and
    its reservations in budgets."""

    account: str
    limits: Limits
    tokens: int
    reservations: tuple[Reservation, ...] = ()

    @property
    def budgets(self) -> str:
        """The reservations in the form in which a stream keeps them."""
        return " ".join(reservation.text for reservation in self.reservations)


def account_of(principal: str) -> str:
    """Return the account's name in keys: a hash, since principals may have any characters and are private."""
    return hashlib.sha256(principal.encode()).hexdigest()[:32]
