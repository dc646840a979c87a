"""Reports of usage for days that Redis has forgotten: their sums come from the archive."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.archive.archive import Archive, open_archive
from shared.archive.records import ArchivedStream
from shared.archive.usage import ArchivedUsage
from shared.broker.usage import UsageRow, UsageSum, rows_of
from shared.protocol.ids import new_stream_id
from shared.protocol.ledger import LedgerEntry
from shared.settings import Settings
from shared.usage_report import UsageOfAllTimes
from tests.archive_databases import PostgresServer, SqliteFile
from tests.archived_system import wants_postgres

DAY_MS = 86_400_000
DAY = 20_000
FIRST = date(1970, 1, 1) + timedelta(DAY)
EVENING = (DAY + 1) * DAY_MS - 1
LEDGERS = {
    "key:a": [
        LedgerEntry(EVENING, "p", "m", "failed", cost_nanos=0, currency="USD", key_id="k", calls=3),
        LedgerEntry(EVENING + 1, "p", "m", "completed", 10, 20, 1, 2, 3, cost_nanos=7, currency="USD", key_id="k"),
        LedgerEntry(
            EVENING + 2, "p", "m", "cancelled", 1, 2, estimated=True, cost_nanos=4, currency="USD", key_id="k"
        ),
    ],
    "key:b": [LedgerEntry(EVENING + 1, "p", "n/o", "completed", 5, 6)],
}


@pytest.fixture(params=[SqliteFile, *([PostgresServer] if wants_postgres() else [])], ids=lambda kind: kind.__name__)
async def archive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Archive]:
    database: SqliteFile = request.param(tmp_path)
    await database.start()
    settings = Settings.model_construct(archive_url=SecretStr(database.url), content_keys=())
    async with open_archive(settings, migrates=True) as opened:
        await opened.write([_stream(principal, ledger) for principal, ledger in LEDGERS.items()])
        yield opened
    await database.stop()


def _stream(principal: str, ledger: list[LedgerEntry]) -> ArchivedStream:
    return ArchivedStream(
        stream_id=new_stream_id(),
        principal=principal,
        chat_id=None,
        status="completed",
        model="m",
        provider="p",
        created=EVENING,
        started=None,
        ended=EVENING + 2,
        view={"finish_reason": "stop", "usage": None, "error": None, "metadata": {}, "text": ""},
        request=b"{}",
        fields={},
        events=[],
        has_cursors=False,
        end="1-1",
        text="",
        ledger=ledger,
    )


def ordered(rows: list[UsageRow]) -> list[UsageRow]:
    return sorted(rows, key=lambda row: (row.day, row.target))


async def test_the_archive_adds_up_the_calls_of_each_day(archive: Archive) -> None:
    """The same as Redis did: by the day of a call's end in UTC, API key, target and currency."""
    usage = ArchivedUsage(archive)
    whole = rows_of([entry for ledger in LEDGERS.values() for entry in ledger])
    assert ordered(await usage.rows(FIRST, FIRST + timedelta(1), None)) == ordered(whole)
    assert await usage.rows(FIRST, FIRST, "key:a") == rows_of(LEDGERS["key:a"][:1])
    (other,) = await usage.rows(FIRST, FIRST + timedelta(9), "key:b")
    assert (other.target, other.sum.unpriced_calls, other.key_id, other.currency) == ("p/n/o", 1, "", "")
    assert await usage.rows(FIRST + timedelta(2), FIRST + timedelta(9), None) == []


class _Source:
    def __init__(self) -> None:
        self.asked: list[tuple[date, date]] = []

    async def rows(self, first: date, last: date, principal: str | None) -> list[UsageRow]:
        self.asked.append((first, last))
        return [UsageRow(0, "", str(principal), "", UsageSum())]


async def test_days_that_redis_has_are_not_asked_of_the_archive() -> None:
    today = datetime.now(UTC).date()
    kept_from = today - timedelta(4)
    for first, last, of_redis, of_archive in (
        (kept_from, today, (kept_from, today), None),
        (kept_from - timedelta(1), today, (kept_from, today), (kept_from - timedelta(1), kept_from - timedelta(1))),
        (FIRST, FIRST, None, (FIRST, FIRST)),
    ):
        redis, archive = _Source(), _Source()
        rows = await UsageOfAllTimes(redis, archive, 5).rows(first, last, "p")
        assert redis.asked == ([of_redis] if of_redis else [])
        assert archive.asked == ([of_archive] if of_archive else [])
        assert len(rows) == len(redis.asked) + len(archive.asked)
