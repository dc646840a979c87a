"""The archive: a database with the streams that have ended."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.archive.engine import make_engine
from shared.archive.records import ArchivedChat, ArchivedStream, Filters, ListedStream, Position
from shared.archive.rows import Rows
from shared.archive.searches import by_ids, chat_members, chats, listing
from shared.archive.sessions import Sessions
from shared.archive.tables import CALLS, STREAMS
from shared.archive.writes import delete_stream, write_streams
from shared.errors import ArchiveUnavailable, ContentUnreadable
from shared.protocol.ledger import LedgerEntry
from shared.settings import Settings

logger = logging.getLogger(__name__)

_SLOW_SEARCH: Final = "the search took too long; narrow it with from, to or chat_id"

_DELETE_S: Final = 5.0
_WRITE_S: Final = 60.0
#: A search may read all streams of its owner; others must not wait for a connection meanwhile.
_MOST_SEARCHES: Final = 2


class Archive:
    """Reads and writes the archive. Each method raises :class:`ArchiveUnavailable`, after some seconds at most if the
    database does not answer. ``migrates``: brings the schema up to date; else waits until another process has."""

    def __init__(self, engine: AsyncEngine, rows: Rows, *, migrates: bool) -> None:
        self.engine = engine
        self.rows = rows
        self._sessions = Sessions(engine, migrates=migrates)
        self._searches = asyncio.Semaphore(_MOST_SEARCHES)

    async def write(self, streams: Sequence[ArchivedStream]) -> None:
        """Write streams and their calls in one transaction. A stream that was deleted stays so, and one that is
        there already is replaced unless it ended later."""
        # In one order, so that two workers with the same streams wait for each other instead of deadlocking.
        streams = sorted(streams, key=lambda stream: stream.stream_id)
        rows = await asyncio.to_thread(lambda: [self.rows.of(stream) for stream in streams])
        await self._sessions.write(lambda connection: write_streams(connection, streams, rows), within_s=_WRITE_S)

    async def find(
        self, stream_id: str, principal: str | None = None, *, with_request: bool = True
    ) -> ArchivedStream | None:
        """Return a stream, if the archive has it and it is ``principal``'s; None: anybody's. Without
        ``with_request``, its request is empty: it may be large. Also raises :class:`ContentUnreadable`."""
        columns = [column for column in STREAMS.c if with_request or column is not STREAMS.c.request]
        query = select(*columns).where(STREAMS.c.stream_id == stream_id)
        if principal is not None:
            query = query.where(STREAMS.c.principal == principal)
        calls = select(CALLS).where(CALLS.c.stream_id == stream_id).order_by(CALLS.c.n)

        async def read(connection: AsyncConnection) -> tuple[Row[Any], list[LedgerEntry]] | None:
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                return None
            return row, [_entry_of(call._mapping) for call in await connection.execute(calls)]

        found = await self._sessions.read(read)
        return None if found is None else await asyncio.to_thread(self.rows.stream, *found)

    async def request_bytes(self, stream_id: str) -> int:
        """Return the size of a stream's request, as it is stored."""
        query = select(func.length(STREAMS.c.request)).where(STREAMS.c.stream_id == stream_id)
        return await self._sessions.read(lambda connection: connection.scalar(query)) or 0

    async def request_sizes(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """Return the sizes of the requests of those streams that the archive has."""
        query = select(STREAMS.c.stream_id, func.length(STREAMS.c.request).label("size"))
        query = query.where(STREAMS.c.stream_id.in_(stream_ids))
        return {row.stream_id: row.size or 0 for row in await self.fetch(query)} if stream_ids else {}

    async def list_streams(
        self, principal: str, *, most: int, before: Position | None = None, filters: Filters | None = None
    ) -> list[ListedStream]:
        """Return a principal's streams, the newest first, that come after the position ``before``. A search by text
        or model reads the streams of the principal one after another until it has found so many. Streams
        whose content no key opens are without their chat and metadata."""
        filters = filters or Filters()
        query = listing(self.rows, self.engine.dialect.name, principal, filters, before, most)
        if filters.text is None and filters.model is None:
            return await self._listed(query, is_search=filters != Filters())
        async with self._searches:
            return await self._listed(query, is_search=True)

    async def list_chats(self, principal: str, *, most: int, before: Position | None = None) -> list[ArchivedChat]:
        """Return a principal's chats, the last changed first, that come after the position ``before``: of a chat's
        newest stream. One that cannot be decrypted has no id."""
        found = await self.fetch(chats(principal, before, most))
        entries = zip(self._entries(found), found, strict=True)
        return [ArchivedChat(entry, row.streams, row.first) for entry, row in entries]

    async def list_chat_members(
        self, principal: str, chat_id: str, *, after: Position | None, before_ms: int, most: int
    ) -> list[Position]:
        """Return times and ids of a chat's streams, the oldest first."""
        query = chat_members(self.rows, principal, chat_id, after, before_ms, most)
        return [(row.created_at, row.stream_id) for row in await self.fetch(query)]

    async def list_some(self, principal: str, stream_ids: Sequence[str]) -> list[ListedStream]:
        """Return those of some streams that the archive has, as :meth:`list_streams` does."""
        return await self._listed(by_ids(principal, stream_ids)) if stream_ids else []

    async def delete(self, stream_id: str) -> bool:
        """Delete a stream for good: no later write brings it back. Its calls stay, since they have no content. Return
        False if the archive did not have it."""
        return await self._sessions.write(lambda connection: delete_stream(connection, stream_id), within_s=_DELETE_S)

    async def fetch(self, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
        """Return the rows of a query, which may be slow: that it takes too long says nothing about the database."""
        return await self._sessions.read(_all(query), is_search=True)

    async def look(self) -> None:
        """Look whether the database can be used. Raises :class:`SettingsError` if it never can."""
        await self._sessions.look()

    async def _listed(self, query: Select[Any], *, is_search: bool = False) -> list[ListedStream]:
        try:
            found = await self._sessions.read(_all(query), is_search=is_search)
        except ArchiveUnavailable as error:
            if is_search and isinstance(error.__cause__, TimeoutError):
                raise ArchiveUnavailable(_SLOW_SEARCH) from error
            raise
        return self._entries(found)

    def _entries(self, found: Sequence[Row[Any]]) -> list[ListedStream]:
        """Return the entries of a list. A stream that no key opens must not take the others from their owner."""
        entries, unreadable = list[ListedStream](), 0
        for row in found:
            try:
                entries.append(self.rows.listed(row))
            except ContentUnreadable:
                entries.append(self.rows.listed_unopened(row))
                unreadable += 1
        if unreadable:
            logger.warning("archived content unreadable", extra={"streams": unreadable})
        return entries


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
        await archive.look()
        yield archive
    finally:
        await engine.dispose()


async def check_archive(settings: Settings) -> None:
    """Raise :class:`SettingsError` as :func:`open_archive` does, without migrating anything."""
    async with open_archive(settings, migrates=False):
        pass


def _all(query: Select[*tuple[Any, ...]]) -> Callable[[AsyncConnection], Awaitable[Sequence[Any]]]:
    async def read(connection: AsyncConnection) -> Sequence[Any]:
        return (await connection.execute(query)).all()

    return read


def _entry_of(row: Any) -> LedgerEntry:
    return LedgerEntry(**{name: row[name] for name in LedgerEntry.__struct_fields__})
