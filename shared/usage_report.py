"""Reports of usage: the ledger's daily sums, grouped, as JSON members and as CSV."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, Protocol, get_args

import msgspec

from shared.broker.client import Client
from shared.broker.usage import UsageRow, UsageSum, read_usage
from shared.protocol.ledger import NANOS, Cost
from shared.rate_limits import account_of

Dimension = Literal["day", "key", "model"]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
#: Days of a report that names none.
DEFAULT_DAYS: Final = 30
MOST_DAYS: Final = 366

_EPOCH: Final = date(1970, 1, 1)
_COUNTS: Final = tuple(name for name in UsageSum.__struct_fields__ if name != "cost_nanos")
_VALUES: Final[dict[Dimension, Callable[[UsageRow], str]]] = {
    "day": lambda row: (_EPOCH + timedelta(row.day)).isoformat(),
    "key": lambda row: row.key_id,
    "model": lambda row: row.target,
}
_NAMES: Final[dict[Dimension, str]] = {"day": "day", "key": "key_id", "model": "model"}


class UsageSource(Protocol):
    """A store of daily sums."""

    async def rows(self, first: date, last: date, principal: str | None) -> list[UsageRow]:
        """Return the sums of the days from ``first`` to ``last``, both included; ``principal``: None for all. Raises
        :class:`Unavailable`."""
        ...


class DeskUsage:
    """The daily sums in Redis, which keeps them for HEADRACE_USAGE_DAYS."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def rows(self, first: date, last: date, principal: str | None) -> list[UsageRow]:
        """Return the sums of some days. Raises :class:`BrokerUnavailable`."""
        days = range((first - _EPOCH).days, (last - _EPOCH).days + 1)
        return await read_usage(self._client, days, None if principal is None else account_of(principal))


class UsageOfAllTimes:
    """The sums in Redis, and for the days that it has forgotten those of the archive. ``kept_days``: of Redis."""

    def __init__(self, desk: UsageSource, archive: UsageSource | None, kept_days: int) -> None:
        self._desk = desk
        self._archive = archive
        self._kept_days = kept_days

    async def rows(self, first: date, last: date, principal: str | None) -> list[UsageRow]:
        """Return the sums of some days. Raises :class:`BrokerUnavailable` and :class:`ArchiveUnavailable`."""
        kept_from = datetime.now(UTC).date() - timedelta(self._kept_days - 1)
        if self._archive is None or first >= kept_from:
            return await self._desk.rows(first, last, principal)
        older = await self._archive.rows(first, min(last, kept_from - timedelta(1)), principal)
        return older if last < kept_from else older + await self._desk.rows(kept_from, last, principal)


async def cost_today(source: UsageSource) -> list[Cost]:
    """Return the costs of all calls that ended today, in UTC: an amount for each currency. Raises
    :class:`Unavailable`."""
    today = datetime.now(UTC).date()
    sums = _grouped(await source.rows(today, today, None), ())
    return [Cost.of(total.cost_nanos, currency) for (currency,), total in sums if currency]


class ReportError(ValueError):
    """A report cannot be made; the message names the parameter, the problem and the remedy."""


class Report:
    """Usage of the days from ``first`` to ``last``, both included and in UTC, by ``by``. Amounts of different
    currencies are never added: a row is of one currency, or of calls without a price."""

    def __init__(self, first: date, last: date, by: Sequence[Dimension], rows: Iterable[UsageRow]) -> None:
        self._first, self._last, self._by = first, last, by
        rows = list(rows)
        self.groups = _grouped(rows, by)
        self._total = _grouped(rows, ())

    def members(self) -> dict[str, Any]:
        """Return the body of a JSON response."""
        return {
            "from": self._first.isoformat(),
            "to": self._last.isoformat(),
            "by": list(self._by),
            "usage": [self._members(*group) for group in self.groups],
            "total": [self._members(*group) for group in self._total],
        }

    def csv(self) -> str:
        """Return the rows as CSV, with a head."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.head)
        writer.writerows(self.lines())
        return text.getvalue()

    @property
    def head(self) -> list[str]:
        return [*(_NAMES[each] for each in self._by), *_COUNTS, "cost", "currency"]

    def lines(self) -> list[list[str]]:
        """Return the rows as texts, in the order of the head. A row without a price has no cost."""
        return [
            [*values, *(str(getattr(total, name)) for name in _COUNTS), _amount(total, currency), currency]
            for (*values, currency), total in self.groups
        ]

    def _members(self, group: tuple[str, ...], total: UsageSum) -> dict[str, Any]:
        *values, currency = group
        cost = Cost.of(total.cost_nanos, currency) if currency else None
        return {
            **{_NAMES[each]: value or None for each, value in zip(self._by, values, strict=False)},
            **{name: getattr(total, name) for name in _COUNTS},
            "cost": cost and msgspec.to_builtins(cost),
        }


def parse_dimensions(text: str) -> list[Dimension]:
    """Parse a list such as ``day,model``. Raises :class:`ReportError`."""
    names = [name.strip() for name in text.split(",")]
    found = [each for name in names for each in DIMENSIONS if each == name]
    if len(found) != len(names) or len(set(found)) != len(found):
        raise ReportError(f"by: unknown or repeated name; use one or more of {', '.join(DIMENSIONS)}")
    return found


def parse_days(first: date | None, last: date | None) -> tuple[date, date]:
    """Return the first and the last day of a report. Without a last day it ends today, without a first one it has
    30 days. Raises :class:`ReportError`."""
    last = last or datetime.now(UTC).date()
    first = first or date.fromordinal(max(1, last.toordinal() - DEFAULT_DAYS + 1))
    if first > last:
        raise ReportError("from: later than to; exchange them")
    if (last - first).days >= MOST_DAYS:
        raise ReportError(f"from: more than {MOST_DAYS} days before to; ask for fewer at once")
    return first, last


def _grouped(rows: Iterable[UsageRow], by: Sequence[Dimension]) -> list[tuple[tuple[str, ...], UsageSum]]:
    """Return the sums of each group, in the order of their values. The last value is the currency."""
    sums = dict[tuple[str, ...], UsageSum]()
    for row in rows:
        group = (*(_VALUES[each](row) for each in by), row.currency)
        sums[group] = sums.get(group, UsageSum()).plus(row.sum)
    return sorted(sums.items())


def _amount(total: UsageSum, currency: str) -> str:
    return f"{total.cost_nanos / NANOS:.9f}".rstrip("0").rstrip(".") if currency else ""
