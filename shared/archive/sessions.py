"""Work with the archive's database, each within a time, and the check of its schema before the first."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.archive import schema
from shared.archive.engine import stopped_at, writing
from shared.archive.trouble import is_about_data, refuse_final, unavailable
from shared.errors import ArchiveUnavailable
from shared.settings import SettingsError

logger = logging.getLogger(__name__)

_READ_S: Final = 5.0
_MIGRATION_S: Final = 600.0
#: After a failure, reads fail at once for so long, so that they do not all wait for a database that is away.
_DOWN_S: Final = 2.0
T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]


class Sessions:
    """Connections for reads and writes. Each method raises :class:`ArchiveUnavailable`. ``migrates``: brings the
    schema up to date; else waits until another process has."""

    def __init__(self, engine: AsyncEngine, *, migrates: bool) -> None:
        self._engine = engine
        self._migrates = migrates
        self._is_ready = False
        self._down_until = 0.0
        self._trouble = ""
        self._abandoned = set[asyncio.Task[Any]]()

    async def look(self) -> None:
        """Check the schema, or migrate it. A database that is away is looked at again with each use. Raises
        :class:`SettingsError` if it never can be used."""
        try:
            await self._within(self._prepare(), _MIGRATION_S if self._migrates else _READ_S)
        except ArchiveUnavailable as error:
            if isinstance(error.__cause__, schema.SchemaTooNew):
                raise SettingsError(f"HEADRACE_ARCHIVE_URL: {error.detail}") from None
            if isinstance(error.__cause__, SQLAlchemyError | OSError):
                refuse_final(error.__cause__)
            logger.warning("archive unavailable", extra={"detail": error.detail})

    async def read(self, work: Work[T], *, is_search: bool = False) -> T:
        """Run ``work`` in a transaction that reads. A search that takes too long, or values that the database cannot
        take, say nothing about the database: other reads go on."""
        if time.monotonic() < self._down_until:
            raise ArchiveUnavailable(detail=self._trouble)
        try:
            return await self._within(self._read(work), _READ_S)
        except ArchiveUnavailable as error:
            is_slow_search = is_search and isinstance(error.__cause__, TimeoutError)
            if not (is_slow_search or is_about_data(error)):
                self._down_until, self._trouble = time.monotonic() + _DOWN_S, error.detail
            raise

    async def write(self, work: Work[T], *, within_s: float) -> T:
        """Run ``work`` in a transaction that writes, and commit it."""
        return await self._within(self._write(work), within_s)

    async def _within(self, work: Awaitable[T], within_s: float) -> T:
        """Await ``work``. If it is late, it is cancelled, and not waited for any longer: a connection that hangs
        takes its time to close."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait([task], timeout=within_s)
            if not done:
                late = TimeoutError()
                raise unavailable(late) from late
            return task.result()
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(error) from error
        finally:
            if not task.done():
                task.cancel()
                self._abandoned.add(task)
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.debug("late work failed", extra={"error": type(task.exception()).__name__})

    async def _read(self, work: Work[T]) -> T:
        deadline = asyncio.get_running_loop().time() + _READ_S
        await self._prepare()
        async with self._engine.connect() as connection, stopped_at(connection, deadline):
            return await work(connection)

    async def _write(self, work: Work[T]) -> T:
        await self._prepare()
        async with writing(self._engine) as connection:
            return await work(connection)

    async def _prepare(self) -> None:
        """Check the schema, or migrate it, once."""
        if self._is_ready:
            return
        try:
            if self._migrates:
                await schema.migrate(self._engine)
            elif not schema.check(found := await schema.read_schema(self._engine)):
                problem = f"has schema {found or 'none'}, this version needs {schema.SCHEMA}"
                raise ArchiveUnavailable(detail=f"archive: the database {problem}; start a worker of this version")
        except schema.SchemaTooNew as error:
            raise ArchiveUnavailable(detail=str(error)) from error
        self._is_ready = True
