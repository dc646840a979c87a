"""Daily sums of the archive's table ``calls``, for the days that Redis has forgotten."""

from datetime import UTC, date, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, func, select

from shared.archive.archive import Archive
from shared.archive.engine import is_postgresql
from shared.archive.tables import CALLS
from shared.broker.usage import UsageRow, UsageSum

_DAY_MS: Final = 86_400_000
_EPOCH: Final = date(1970, 1, 1)
_TARGET: Final = CALLS.c.provider + "/" + CALLS.c.model


class ArchivedUsage:
    """A source of daily sums. Streams that were not archived are missing."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def rows(self, first: date, last: date, principal: str | None) -> list[UsageRow]:
        """Return the sums of some days, both included. Raises :class:`ArchiveUnavailable`."""
        query = _sums(_ms(first), _ms(last) + _DAY_MS, principal, is_postgresql=is_postgresql(self._archive.engine))
        return [_row(*row) for row in await self._archive.fetch(query)]


def _sums(from_ms: int, to_ms: int, principal: str | None, *, is_postgresql: bool) -> Select[Any]:
    day = func.date(func.timezone("UTC", CALLS.c.at) if is_postgresql else CALLS.c.at)
    group = day, CALLS.c.key_id, _TARGET, CALLS.c.currency
    tokens = (
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "cost_nanos",
    )
    counts = [
        func.sum(CALLS.c.calls),
        _calls_with(CALLS.c.outcome == "failed"),
        _calls_with(CALLS.c.estimated),
        _calls_with(CALLS.c.cost_nanos.is_(None)),
        *(func.coalesce(func.sum(CALLS.c[name]), 0) for name in tokens),
    ]
    query = select(*group, *counts).where(CALLS.c.at >= from_ms, CALLS.c.at < to_ms).group_by(*group)
    return query if principal is None else query.where(CALLS.c.principal == principal)


def _calls_with(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, CALLS.c.calls), else_=0))


def _row(day: str | date, key_id: str, target: str, currency: str, *counts: int) -> UsageRow:
    at = date.fromisoformat(day) if isinstance(day, str) else day
    return UsageRow((at - _EPOCH).days, key_id, target, currency, UsageSum(*map(int, counts)))


def _ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
