"""The archive's database by itself: schema, rows, searches, deletions, and wrong settings."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, literal, select

from shared.archive import schema
from shared.archive.archive import Archive, check_archive, open_archive
from shared.archive.engine import make_engine
from shared.archive.records import ArchivedStream, Filters
from shared.archive.tables import METADATA
from shared.errors import ArchiveUnavailable, ContentUnreadable
from shared.protocol.ids import new_stream_id
from shared.protocol.ledger import LedgerEntry
from shared.settings import Settings, SettingsError
from tests.archive_databases import PostgresServer, SqliteFile
from tests.archived_system import wants_postgres

DATABASES = [SqliteFile, *([PostgresServer] if wants_postgres() else [])]
KEY, NEWER_KEY = SecretStr("ab" * 32), SecretStr("cd" * 32)


@pytest.fixture(scope="module", params=DATABASES, ids=lambda kind: kind.__name__)
async def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SqliteFile]:
    made: SqliteFile = request.param(tmp_path_factory.mktemp("archive"))
    await made.start()
    async with open_archive(settings_of(made.url), migrates=True):
        yield made
    await made.stop()
    made.remove()


@pytest.fixture
async def archive(database: SqliteFile) -> AsyncIterator[Archive]:
    async with open_archive(settings_of(database.url), migrates=True) as opened:
        yield opened


def settings_of(url: str, *keys: SecretStr) -> Settings:
    return Settings.model_construct(archive_url=SecretStr(url), content_keys=keys)


def stream(text: str = "an answer", **changes: Any) -> ArchivedStream:
    view = {
        "text": text,
        "finish_reason": "stop",
        "usage": {"input_tokens": 3, "output_tokens": 5, "estimated": False},
        "error": None,
        "metadata": {"order": "17"},
    }
    made = ArchivedStream(
        stream_id=new_stream_id(),
        principal="key:shop",
        chat_id="a chat",
        status="completed",
        model="gpt-5",
        provider="openai",
        created=1_790_000_000_123,
        started=None,
        ended=1_790_000_001_456,
        view=view,
        request=b'{"messages":[{"role":"user","content":"hi \\u0000"}]}',
        fields={"follow_up": "0", "lineage": "4:1"},
        events=[b'{"token":"an"}', b'{"done":{}}'],
        has_cursors=True,
        end="7-2",
        text=text,
        ledger=[
            LedgerEntry(1_790_000_001_000, "openai", "gpt-5", "failed", cost_nanos=0, currency="EUR"),
            LedgerEntry(1_790_000_001_400, "openai", "gpt-5", "completed", 3, 5, cost_nanos=1_250, currency="EUR"),
        ],
    )
    return replace(made, **changes)


async def test_a_stream_comes_back_as_it_was(archive: Archive, database: SqliteFile) -> None:
    written = stream("NUL \0, a lone \ud800, and 日本語")
    view = {**written.view, "text": "the same", "error": {"code": "provider\0"}}
    await archive.write([replace(written, view=view, model="m\0", chat_id="c\0")])
    found = await archive.find(written.stream_id)
    text = "NUL \ufffd, a lone ?, and 日本語"
    assert found == replace(written, view=view, model="m\ufffd", chat_id="c\0", text=text)
    assert await archive.find(written.stream_id, "key:other") is None
    [row] = await database.rows(f"SELECT * FROM streams WHERE stream_id = '{written.stream_id}'")
    assert str(row["created_at"]).startswith("2026-09-21 14:13:20.123")
    assert (row["input_tokens"], row["cost_nanos"], row["currency"], row["sealed"]) == (3, 1_250, "EUR", False)
    calls = await database.rows(f"SELECT * FROM calls WHERE stream_id = '{written.stream_id}' ORDER BY n")
    assert [(call["n"], call["outcome"], call["cost_nanos"]) for call in calls] == [
        (1, "failed", 0),
        (2, "completed", 1_250),
    ]


async def test_only_an_ending_that_is_not_older_replaces_a_stream(archive: Archive, database: SqliteFile) -> None:
    first = stream()
    await archive.write([first, stream()])
    await archive.write([replace(first, ended=first.ended - 1, text="older", ledger=first.ledger[:1])])
    assert await archive.find(first.stream_id) == first
    later = replace(first, ended=first.ended + 1, text="later", ledger=first.ledger[1:])
    await archive.write([later])
    assert await archive.find(first.stream_id) == later


async def test_a_late_write_does_not_bring_a_deleted_stream_back(archive: Archive, database: SqliteFile) -> None:
    async with open_archive(settings_of(database.url), migrates=False) as gateway:
        for _ in range(20):
            streams = [stream() for _ in range(5)]
            deleted = streams[2].stream_id
            await asyncio.gather(archive.write(streams), gateway.delete(deleted), archive.write(streams[2:3]))
            await archive.write(streams)
            assert await archive.find(deleted) is None
            assert not await gateway.delete(deleted)
            others = [each.stream_id for each in streams if each.stream_id != deleted]
            assert {each.stream_id for each in await archive.list_some("key:shop", others)} == set(others)
            bought = await database.rows(f"SELECT * FROM calls WHERE stream_id = '{deleted}'")
            assert len(bought) == 2  # its costs stay


async def test_lists_are_pages_in_one_order(archive: Archive) -> None:
    created = [1_790_000_000_000 + n // 3 for n in range(10)]  # several in one millisecond
    streams = [stream(principal="key:pages", created=at) for at in created]
    await archive.write(streams)
    expected = sorted(((each.created, each.stream_id) for each in streams), reverse=True)
    for most in (1, 3, 10):
        found: list[tuple[int, str]] = []
        while page := await archive.list_streams("key:pages", most=most, before=found[-1] if found else None):
            found += [(each.created, each.stream_id) for each in page]
        assert found == expected
    beyond = (10**15 - 1, "f" * 34)
    assert len(await archive.list_streams("key:pages", most=10, before=beyond)) == 10


async def test_sealed_content_is_not_readable_and_not_searchable(database: SqliteFile) -> None:
    secret = stream("a secret answer", principal="key:sealed", chat_id="a secret chat")
    async with open_archive(settings_of(database.url, KEY), migrates=False) as sealed:
        await sealed.write([secret])
        assert await sealed.find(secret.stream_id) == replace(secret, text=None)
    async with open_archive(settings_of(database.url, NEWER_KEY, KEY), migrates=False) as rotated:
        assert await rotated.find(secret.stream_id) == replace(secret, text=None)
        found = await rotated.list_streams("key:sealed", most=9, filters=Filters(chat_id="a secret chat"))
        assert [each.metadata for each in found] == [{"order": "17"}]
        assert not await rotated.list_streams("key:other", most=9, filters=Filters(chat_id="a secret chat"))
    async with open_archive(settings_of(database.url), migrates=False) as without:
        with pytest.raises(ContentUnreadable):
            await without.find(secret.stream_id)
        [entry] = await without.list_streams("key:sealed", most=9)
        assert (entry.stream_id, entry.chat_id, entry.metadata) == (secret.stream_id, None, {})
    [row] = await database.rows(f"SELECT * FROM streams WHERE stream_id = '{secret.stream_id}'")
    assert not [
        name for name, value in row.items() if any(w in str(value) for w in ("secret", '"order', '"role', '"token'))
    ]
    assert row["sealed"]


async def test_processes_that_start_together_migrate_once(tmp_path: Path) -> None:
    settings = settings_of(f"sqlite:///{tmp_path}/archive.db")
    async with open_archive(settings, migrates=False) as gateway:
        with pytest.raises(ArchiveUnavailable) as refused:
            await gateway.find("a" * 34)
        assert "start a worker" in refused.value.detail
        async with AsyncExitStack() as stack:
            opening = [stack.enter_async_context(open_archive(settings, migrates=True)) for _ in range(6)]
            workers = await asyncio.gather(*opening)
            await asyncio.gather(*(worker.write([stream()]) for worker in workers))
        assert await schema.read_schema(gateway.engine) == schema.SCHEMA


async def test_the_migrations_make_the_tables_of_the_code(archive: Archive) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        return [each for each in compare_metadata(context, METADATA) if schema.VERSION_TABLE not in str(each)]

    async with archive.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    folder = Path(schema.__file__).parent / "migrations"
    assert ScriptDirectory(folder).get_current_head() == schema.SCHEMA


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    settings = settings_of(f"sqlite:///{tmp_path}/archive.db")
    async with open_archive(settings, migrates=True) as archive:
        pass
    with closing(sqlite3.connect(tmp_path / "archive.db")) as connection, connection:
        connection.execute("UPDATE headrace_schema SET version_num = '9000'")
    for migrates in (True, False):
        with pytest.raises(SettingsError, match=f"has schema 9000, this version knows {schema.SCHEMA}; upgrade"):
            async with open_archive(settings, migrates=migrates):
                pass
    assert archive is not None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite:///{folder}/none/archive.db", "the directory .*/none does not exist"),
        ("sqlite:///{folder}", "is a directory"),
        ("sqlite:///{folder}/garbage", "file is not a database"),
        ("sqlite:///{folder}/others.db", "already exists"),
    ],
)
async def test_a_wrong_setting_stops_the_start(tmp_path: Path, url: str, problem: str) -> None:
    (tmp_path / "garbage").write_text("no database " * 1000)
    with closing(sqlite3.connect(tmp_path / "others.db")) as connection:
        connection.execute("CREATE TABLE streams (mine text)")
    with pytest.raises(SettingsError, match=problem) as refused:
        async with open_archive(settings_of(url.format(folder=tmp_path)), migrates=True):
            pass
    assert "HEADRACE_ARCHIVE_URL" in str(refused.value)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
async def test_a_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SettingsError, match="cannot be written"):
            make_engine(f"sqlite:///{tmp_path}/archive.db")
    finally:
        tmp_path.chmod(0o700)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where headrace[postgres] is not installed
    with pytest.raises(SettingsError, match=r"pip install 'headrace\[postgres\]'"):
        make_engine("postgresql://headrace:a-password@127.0.0.1/archive")


async def test_wrong_credentials_stop_the_start_and_are_not_repeated(database: SqliteFile) -> None:
    if not isinstance(database, PostgresServer):
        pytest.skip("SQLite has no credentials")
    for url in (database.url.replace("a-password", "wr0ng"), database.url.replace("/archive", "/n0ne")):
        with pytest.raises(SettingsError) as refused:
            await check_archive(settings_of(url))
        assert "HEADRACE_ARCHIVE_URL" in str(refused.value)
        assert "wr0ng" not in str(refused.value)


async def test_a_database_that_is_away_does_not_stop_the_start(caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of("postgresql://headrace:a-password@127.0.0.1:9/archive")
    async with open_archive(settings, migrates=False) as archive:
        with pytest.raises(ArchiveUnavailable) as refused:
            await archive.find("a" * 34)
    assert "127.0.0.1" in refused.value.detail
    assert "a-password" not in refused.value.detail + caplog.text


async def test_a_database_that_hangs_delays_nobody_for_long(database: SqliteFile, archive: Archive) -> None:
    if not isinstance(database, PostgresServer):
        pytest.skip("a file does not hang")
    await archive.find("a" * 34)
    database.freeze()
    try:
        for work in (archive.find("a" * 34), archive.find("a" * 34), archive.delete("a" * 34)):
            async with asyncio.timeout(10):
                with pytest.raises(ArchiveUnavailable, match="try again"):
                    await work
    finally:
        database.thaw()
    async with asyncio.timeout(30):
        while not await is_back(archive):
            await asyncio.sleep(0.1)


async def test_values_that_the_database_cannot_take_stop_no_other_read(archive: Archive) -> None:
    beyond_the_calendar = Filters(from_ms=-(10**14))
    with pytest.raises(ArchiveUnavailable):
        await archive.list_streams("key:shop", most=1, filters=beyond_the_calendar)
    assert await archive.find("a" * 34) is None


async def test_slow_reads_are_stopped_and_delay_nobody(
    archive: Archive, database: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archive.find("a" * 34)
    monkeypatch.setattr("shared.archive.sessions._READ_S", 0.2)
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1))
    endless = select(func.max(numbers.c.n))
    for _ in range(2):  # more than there are connections
        slow = await asyncio.gather(*(archive.fetch(endless) for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in slow] == [ArchiveUnavailable] * 5
    monkeypatch.undo()
    assert await archive.find("a" * 34) is None


async def is_back(archive: Archive) -> bool:
    try:
        return await archive.find("a" * 34) is None
    except ArchiveUnavailable:
        return False
