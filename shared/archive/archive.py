"""The archive: a database with the streams that have ended."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import Select, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.archive import schema
from shared.archive.engine import DELETION_LOCK, lock, make_engine, writing
from shared.archive.records import ArchivedStream, ListedStream
from shared.archive.rows import Rows
from shared.archive.searches import Filters, Position, by_ids, listing
from shared.archive.tables import CALLS, DELETED, STREAMS
from shared.archive.trouble import reason_of, refuse_final, unavailable
from shared.errors import ArchiveUnavailable
from shared.protocol.ledger import LedgerEntry
from shared.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

_SLOW_SEARCH: Final = "q: the search took too long; narrow it with from, to or chat_id"

_READ_S: Final = 5.0
_WRITE_S: Final = 60.0
#: After a failure, reads fail at once for so long, so that they do not all wait for a database that is away.
_DOWN_S: Final = 2.0
#: A search may read all texts of its owner; others must not wait for a connection meanwhile.
_MOST_SEARCHES: Final = 2
#: A deletion is kept for longer than any process can hold a stream that it has still to write.
_DELETED_MS: Final = 30 * 86_400_000


class Archive:
    """Reads and writes the archive. Each method raises :class:`ArchiveUnavailable`, after some seconds at most if the
    database does not answer. ``migrates``: brings the schema up to date; else waits until another process has."""

    def __init__(self, engine: AsyncEngine, rows: Rows, *, migrates: bool) -> None:
        self.engine = engine
        self.rows = rows
        self._migrates = migrates
        self._is_ready = False
        self._searches = asyncio.Semaphore(_MOST_SEARCHES)
        self._down_until = 0.0
        self._trouble = ""

    async def write(self, streams: Sequence[ArchivedStream]) -> None:
        """Write streams and their calls in one transaction. A stream that was deleted stays so, and one that is
        there already is replaced unless it ended later."""
        rows = await asyncio.to_thread(lambda: [self.rows.of(stream) for stream in streams])
        async with self.session(_WRITE_S, writes=True) as connection:
            await lock(connection, DELETION_LOCK, shared=True)
            await _write(connection, streams, rows)

    async def find(
        self, stream_id: str, principal: str | None = None, *, with_request: bool = True
    ) -> ArchivedStream | None:
        """Return a stream, if the archive has it and it is ``principal``'s; None: anybody's. Without
        ``with_request``, its request is empty: it may be large. Also raises :class:`ContentUnreadable`."""
        columns = [column for column in STREAMS.c if with_request or column is not STREAMS.c.request]
        query = select(*columns).where(STREAMS.c.stream_id == stream_id)
        if principal is not None:
            query = query.where(STREAMS.c.principal == principal)
        async with self.session() as connection:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            calls = await connection.execute(select(CALLS).where(CALLS.c.stream_id == stream_id).order_by(CALLS.c.n))
            ledger = [_entry_of(call._mapping) for call in calls]
        return await asyncio.to_thread(self.rows.stream, row, ledger)

    async def request_bytes(self, stream_id: str) -> int:
        """Return the size of a stream's request, as it is stored."""
        query = select(func.length(STREAMS.c.request)).where(STREAMS.c.stream_id == stream_id)
        async with self.session() as connection:
            return await connection.scalar(query) or 0

    async def list_streams(
        self, principal: str, *, most: int, before: Position | None = None, filters: Filters | None = None
    ) -> list[ListedStream]:
        """Return a principal's streams, the newest first, that come after the position ``before``. A search by text
        reads the texts of the principal's streams one after another until it has found so many. Also raises
        :class:`ContentUnreadable`."""
        filters = filters or Filters()
        query = listing(self.rows, self.engine.dialect.name, principal, filters, before, most)
        if filters.text is None:
            return await self._listed(query)
        async with self._searches:
            return await self._listed(query, is_search=True)

    async def list_some(self, principal: str, stream_ids: Sequence[str]) -> list[ListedStream]:
        """Return those of some streams that the archive has. Raises as :meth:`list_streams` does."""
        return await self._listed(by_ids(principal, stream_ids)) if stream_ids else []

    async def delete(self, stream_id: str) -> bool:
        """Delete a stream for good: no later write brings it back. Its calls stay, since they have no content. Return
        False if the archive did not have it."""
        now = time.time_ns() // 1_000_000
        async with self.session(writes=True) as connection:
            await lock(connection, DELETION_LOCK)
            await connection.execute(delete(DELETED).where(DELETED.c.deleted_at < now - _DELETED_MS))
            note = _insert(connection, DELETED).on_conflict_do_nothing()
            await connection.execute(note, {"stream_id": stream_id, "deleted_at": now})
            removed = await connection.execute(delete(STREAMS).where(STREAMS.c.stream_id == stream_id))
        return removed.rowcount > 0

    async def prepare(self) -> None:
        """Check the schema, or migrate it, once."""
        if self._is_ready:
            return
        try:
            if self._migrates:
                await schema.migrate(self.engine)
            elif not schema.check(found := await schema.read_schema(self.engine)):
                problem = f"has schema {found or 'none'}, this version needs {schema.SCHEMA}"
                raise ArchiveUnavailable(detail=f"archive: the database {problem}; start a worker of this version")
        except schema.SchemaTooNew as error:
            raise ArchiveUnavailable(detail=str(error)) from error
        self._is_ready = True

    async def _listed(self, query: Select[Any], *, is_search: bool = False) -> list[ListedStream]:
        async with self.session(is_search=is_search) as connection:
            found = (await connection.execute(query)).all()
        return [self.rows.listed(row) for row in found]

    @asynccontextmanager
    async def session(
        self, timeout_s: float = _READ_S, *, writes: bool = False, is_search: bool = False
    ) -> AsyncIterator[AsyncConnection]:
        """Provide a connection in a transaction. Errors of the database become :class:`ArchiveUnavailable`."""
        if not writes and time.monotonic() < self._down_until:
            raise ArchiveUnavailable(detail=self._trouble)
        try:
            async with asyncio.timeout(timeout_s):
                await self.prepare()
                if writes:
                    async with writing(self.engine) as connection:
                        yield connection
                else:
                    async with self.engine.connect() as connection:
                        yield connection
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            if is_search and isinstance(error, TimeoutError):
                raise ArchiveUnavailable(_SLOW_SEARCH) from error
            trouble = unavailable(error)
            self._down_until, self._trouble = time.monotonic() + _DOWN_S, trouble.detail
            raise trouble from error


@asynccontextmanager
async def open_archive(settings: Settings, *, migrates: bool) -> AsyncIterator[Archive]:
    """Open the archive of ``HEADRACE_ARCHIVE_URL``. A database that does not answer is asked again with each use.
    Raises :class:`SettingsError` if the setting is wrong, and if the schema is newer than this version."""
    if settings.archive_url is None:
        raise ValueError("archive_url is not set")
    keys = [bytes.fromhex(key.get_secret_value()) for key in settings.content_keys]
    engine = make_engine(settings.archive_url.get_secret_value())
    archive = Archive(engine, Rows(keys), migrates=migrates)
    try:
        await _first_look(archive)
        yield archive
    finally:
        await engine.dispose()


async def check_archive(settings: Settings) -> None:
    """Raise :class:`SettingsError` as :func:`open_archive` does, without migrating anything."""
    async with open_archive(settings, migrates=False):
        pass


async def _first_look(archive: Archive) -> None:
    try:
        async with asyncio.timeout(_READ_S):
            await archive.prepare()
    except ArchiveUnavailable as error:
        if isinstance(error.__cause__, schema.SchemaTooNew):
            raise SettingsError(f"HEADRACE_ARCHIVE_URL: {error.detail}") from None
        logger.warning("archive unavailable", extra={"detail": error.detail})
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        refuse_final(error)
        logger.warning("archive unavailable", extra={"detail": reason_of(error)})


async def _write(
    connection: AsyncConnection, streams: Sequence[ArchivedStream], rows: Sequence[dict[str, Any]]
) -> None:
    ids = [stream.stream_id for stream in streams]
    deleted = set(await connection.scalars(select(DELETED.c.stream_id).where(DELETED.c.stream_id.in_(ids))))
    kept = [row for row in rows if row["stream_id"] not in deleted]
    if kept:
        upsert = _insert(connection, STREAMS)
        upsert = upsert.on_conflict_do_update(
            index_elements=["stream_id"],
            set_={column.name: upsert.excluded[column.name] for column in STREAMS.c if not column.primary_key},
            where=STREAMS.c.ended_at <= upsert.excluded.ended_at,
        )
        await connection.execute(upsert, kept)
    times = await connection.execute(
        select(STREAMS.c.stream_id, STREAMS.c.ended_at).where(STREAMS.c.stream_id.in_(ids))
    )
    ended = {row.stream_id: row.ended_at for row in times}
    written = [stream for stream in streams if ended.get(stream.stream_id, stream.ended) == stream.ended]
    await _write_calls(connection, written)


async def _write_calls(connection: AsyncConnection, streams: Sequence[ArchivedStream]) -> None:
    with_calls = [stream for stream in streams if stream.ledger]
    if not with_calls:
        return
    ids = [stream.stream_id for stream in with_calls]
    await connection.execute(delete(CALLS).where(CALLS.c.stream_id.in_(ids)))
    calls = [
        {"stream_id": stream.stream_id, "n": n, "principal": stream.principal, **_call_of(entry)}
        for stream in with_calls
        for n, entry in enumerate(stream.ledger, start=1)
    ]
    await connection.execute(_insert(connection, CALLS), calls)


def _insert(connection: AsyncConnection, table: Any) -> Any:
    """Return an insertion that can handle conflicts, which both databases write the same way."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _call_of(entry: LedgerEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in LedgerEntry.__struct_fields__}


def _entry_of(row: Any) -> LedgerEntry:
    return LedgerEntry(**{name: row[name] for name in LedgerEntry.__struct_fields__})
