"""Connections to the archive's database: SQLite or PostgreSQL.

Transactions on SQLite begin by ``BEGIN`` here and not in Python's driver, which begins them too late for migrations.
"""

import asyncio
import importlib.util
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.engine import URL, ExecutionContext
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.settings import SettingsError

_SETTING: Final = "HEADRACE_ARCHIVE_URL"
_BUSY_S: Final = 10
_CONNECT_S: Final = 5
_CONNECTIONS: Final = 5
_IDLE_MS: Final = 60_000
#: Between two interruptions of SQLite.
_AGAIN_S: Final = 0.1
#: Advisory locks of PostgreSQL: of migrations, and of deletions against writes.
MIGRATION_LOCK: Final = 0x68656164_72616365
DELETION_LOCK: Final = MIGRATION_LOCK + 1


def make_engine(url: str) -> AsyncEngine:
    """Return an engine that has not connected yet. Raises :class:`SettingsError`."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if importlib.util.find_spec("psycopg") is None:
        problem = "postgresql:// needs a driver that is not installed"
        remedy = "pip install 'headrace[postgres]', or in a checkout pip install -e '.[postgres]'"
        raise SettingsError(f"{_SETTING}: {problem}; run {remedy}")
    return create_async_engine(
        parsed.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_CONNECT_S,
        # Poolers such as PgBouncer need not know prepared statements.
        connect_args={"connect_timeout": _CONNECT_S, "application_name": "headrace", "prepare_threshold": None},
    )


def is_postgresql(engine: AsyncEngine) -> bool:
    return engine.dialect.name == "postgresql"


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Provide a connection in a transaction that writes, and commit it at the end."""
    async with engine.execution_options(headrace_writes=True).begin() as connection:
        if is_postgresql(engine):  # a process that hangs must not keep its locks
            await connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MS}"))
        yield connection


@asynccontextmanager
async def stopped_at(connection: AsyncConnection, deadline: float) -> AsyncIterator[None]:
    """Stop a statement of SQLite that still runs at the deadline, a time of the loop: else it would keep its
    connection. PostgreSQL's driver stops statements that are cancelled. Raises :class:`TimeoutError` then."""
    if connection.dialect.name == "postgresql":
        yield
        return
    driver = (await connection.get_raw_connection()).driver_connection
    stop = asyncio.create_task(_stop_at(driver, deadline))
    try:
        yield
    except OperationalError as error:
        if asyncio.get_running_loop().time() >= deadline:
            raise TimeoutError from error
        raise
    finally:
        try:
            await connection.rollback()  # waits for the statement, if the reader was cancelled
        finally:
            stop.cancel()


async def _stop_at(driver: Any, deadline: float) -> None:
    """Interrupt what runs from the deadline on, until cancelled: a statement that begins a moment later would miss a
    single interruption, and keep its connection."""
    await asyncio.sleep(deadline - asyncio.get_running_loop().time())
    with suppress(ValueError, sqlite3.ProgrammingError):  # it has been closed
        while True:
            await driver.interrupt()
            await asyncio.sleep(_AGAIN_S)


async def lock(connection: AsyncConnection, number: int, *, shared: bool = False) -> None:
    """Take an advisory lock of PostgreSQL until the end of the transaction. SQLite has one writer at a time."""
    if connection.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        await connection.execute(text(f"SELECT {function}(:number)"), {"number": number})


def _sqlite(url: URL) -> AsyncEngine:
    path = Path(url.database or "")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise SettingsError(f"{_SETTING}: the directory {parent} does not exist; create it or name another path")
    if path.is_dir():
        raise SettingsError(f"{_SETTING}: {path} is a directory; name a file in it")
    if not os.access(parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        problem = f"{path} cannot be written by this process"
        raise SettingsError(f"{_SETTING}: {problem}; SQLite needs to write the file and its directory")
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        hide_parameters=True,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_CONNECT_S,
        connect_args={"timeout": _BUSY_S},
    )
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: ExecutionContext) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
    connection.create_function("headrace_lower", 1, _lower, deterministic=True)


def _lower(value: str | None) -> str | None:
    return None if value is None else value.lower()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("headrace_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
