"""Budgets: the money and the tokens that an API key, or the whole server, may use in a UTC day and a UTC month.

Money is counted in nanos, billionths of a unit of its currency. ``_budgets.lua`` counts; see docs/limits.md.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal

from shared.protocol.ledger import NANOS

Kind = Literal["nanos", "tokens"]
Period = Literal["day", "month"]
#: In the order in which a refusal names them: what is free again last comes first.
PERIODS: Final[tuple[Period, ...]] = ("month", "day")
KINDS: Final[tuple[Kind, ...]] = ("nanos", "tokens")
#: Account of the budgets of the whole server. Those of API keys have the key's id.
SERVER: Final = "server"

_MOST_UNITS: Final = 1_000_000_000
_MOST_TOKENS: Final = 10**15
_MONEY: Final = re.compile(r"(\d{1,10}(?:\.\d{1,9})?)\s*([A-Z]{3})", re.ASCII)
_TOKENS: Final = re.compile(r"(\d{1,16})\s*tokens?", re.ASCII)
_FORM: Final = "write it as 5 USD, as 2000000 tokens, or as both, separated by a comma"


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one account in one period; 0: unlimited. ``currency``: of ``nanos``; empty without money."""

    nanos: int = 0
    tokens: int = 0
    currency: str = ""

    @property
    def text(self) -> str:
        """The form that :func:`parse_budget` reads."""
        money = [money_text(self.nanos, self.currency)] if self.nanos else []
        return ",".join([*money, *([f"{self.tokens} tokens"] if self.tokens else [])])


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets of one account. Both have the same currency, if they have any."""

    day: Budget = Budget()
    month: Budget = Budget()

    @property
    def currency(self) -> str:
        return self.day.currency or self.month.currency

    @property
    def least_nanos(self) -> int:
        """The smaller of the amounts of money; 0: no limit."""
        return min((budget.nanos for budget in (self.day, self.month) if budget.nanos), default=0)

    @property
    def least_tokens(self) -> int:
        return min((budget.tokens for budget in (self.day, self.month) if budget.tokens), default=0)

    def __bool__(self) -> bool:
        return bool(self.least_nanos or self.least_tokens)


NO_BUDGETS: Final = Budgets()


@dataclass(frozen=True, slots=True)
class Reservation:
    """Reservation of one stream in the budgets of one account, until its real use is known. ``nanos``: None if its
    money is not counted. ``is_fixed``: its cost may be in another currency, so the reserved amount stays."""

    account: str
    tokens: int
    nanos: int | None
    budgets: Budgets = NO_BUDGETS
    is_fixed: bool = False

    @property
    def text(self) -> str:
        """The stream's own part, as the state and the desk keep it."""
        return f"{self.account}:{self.tokens}:{self._money}"

    @property
    def argument(self) -> str:
        """The form that ``admit.lua`` takes."""
        limits = [getattr(getattr(self.budgets, period), kind) for period in PERIODS for kind in KINDS]
        return " ".join(map(str, (self.account, self.tokens, self._money, *limits)))

    @property
    def _money(self) -> str:
        if self.nanos is None:
            return "-"
        return f"={self.nanos}" if self.is_fixed else str(self.nanos)


def parse_reservations(text: str) -> tuple[Reservation, ...]:
    """Return the reservations in a stream's state, without limits."""
    found = []
    for word in text.split():
        account, tokens, money = word.split(":")
        nanos = None if money == "-" else int(money.removeprefix("="))
        found.append(Reservation(account, int(tokens), nanos, is_fixed=money.startswith("=")))
    return tuple(found)


def parse_budgets(day: Iterable[str], month: Iterable[str]) -> Budgets:
    """Parse the budgets of an account. Raises ValueError with the problem and the remedy."""
    budgets = Budgets(parse_budget(",".join(day)), parse_budget(",".join(month)))
    check_currency(budgets)
    return budgets


def check_currency(budgets: Budgets) -> None:
    """Raise ValueError if the budgets of an account have two currencies: a price has one."""
    if len({budgets.day.currency, budgets.month.currency} - {""}) > 1:
        currencies = f"{budgets.month.currency}, and the other budget {budgets.day.currency}"
        raise ValueError(f"is in {currencies}; use one currency for both")


@lru_cache(maxsize=1024)
def parse_budget(text: str) -> Budget:
    """Parse a budget such as ``5 USD,2000000 tokens``. Raises ValueError with the problem and the remedy."""
    nanos, tokens, currency = 0, 0, ""
    for n, part in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
        if (match := _MONEY.fullmatch(part)) is not None:
            if currency:
                raise ValueError("has two amounts of money; use one")
            nanos, currency = int(Decimal(match[1]) * NANOS), match[2]
            _check_size(n, nanos, _MOST_UNITS * NANOS, f"{_MOST_UNITS} {currency}")
        elif (match := _TOKENS.fullmatch(part)) is not None:
            if tokens:
                raise ValueError("has two numbers of tokens; use one")
            tokens = int(match[1])
            _check_size(n, tokens, _MOST_TOKENS, f"{_MOST_TOKENS} tokens")
        else:
            raise ValueError(f"entry {n} is no amount of money and no number of tokens; {_FORM}")
    return Budget(nanos, tokens, currency)


def _check_size(n: int, amount: int, most: int, most_text: str) -> None:
    if amount == 0:
        raise ValueError(f"entry {n} is 0, which allows nothing; leave it out for no budget, or revoke the key")
    if amount > most:
        raise ValueError(f"entry {n} is above {most_text}; use less")


def money_text(nanos: int, currency: str) -> str:
    """Format an amount, such as ``0.25 USD``."""
    return f"{Decimal(nanos) / NANOS:f} {currency}".strip()


def amount_text(kind: Kind, amount: int, currency: str) -> str:
    return money_text(amount, currency) if kind == "nanos" else f"{amount} tokens"


def period_at(period: Period, at: datetime) -> str:
    """Return the name of a period in the fields of an account: ``d<day since 1970>``, or ``m<months since March of
    the year 0>`` (years that begin in March make the calendar of the script short)."""
    if period == "day":
        return f"d{(at - datetime(1970, 1, 1, tzinfo=UTC)).days}"
    return f"m{(at.year - (at.month < 3)) * 12 + (at.month - 3) % 12}"


def resets_at(period: str) -> datetime:
    """Return the end of a period by its name."""
    number = int(period[1:])
    if period[0] == "d":
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number + 1)
    year, month = divmod(number + 3, 12)  # of the month after it, from January = 0 on
    return datetime(year, month + 1, 1, tzinfo=UTC)


def period_of(name: str) -> Period:
    return "day" if name[0] == "d" else "month"
