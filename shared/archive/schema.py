"""The version of the archive's schema: workers migrate it, gateways only check it."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.archive.engine import MIGRATION_LOCK, lock, writing

#: The newest migration of this version.
SCHEMA: Final = "0001"
#: Not Alembic's own name, so that a database may be shared with an application that uses Alembic too.
VERSION_TABLE: Final = "headrace_schema"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class SchemaTooNew(Exception):
    """A newer version of Headrace has migrated the archive."""


async def read_schema(engine: AsyncEngine) -> str | None:
    """Return the schema of the database; None if it has none."""
    async with engine.connect() as connection:
        return await connection.run_sync(_version)


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema up to date. Several processes may do so at once. Raises :class:`SchemaTooNew`."""
    if await read_schema(engine) == SCHEMA:
        return
    async with writing(engine) as connection:
        await lock(connection, MIGRATION_LOCK)
        check(await connection.run_sync(_version))
        await connection.run_sync(_upgrade)


def check(schema: str | None) -> bool:
    """Return True if the schema is this version's. Raises :class:`SchemaTooNew`."""
    if schema is not None and schema > SCHEMA:
        raise SchemaTooNew(f"the archive has schema {schema}, this version knows {SCHEMA}; upgrade Headrace")
    return schema == SCHEMA


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  a constant


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  slow to load, and needed once
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, SCHEMA)
