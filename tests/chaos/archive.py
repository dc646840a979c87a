"""Takes the archive's database away for a while, and judges whether the archive has each ending once."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

from pydantic import SecretStr

from shared.archive.archive import open_archive
from shared.archive.records import ArchivedStream
from shared.broker.client import connect, run_commands
from shared.broker.due_queues import put_off
from shared.broker.keys import UNARCHIVED
from shared.errors import BrokerUnavailable
from shared.settings import Settings
from tests.archive_databases import PostgresServer, SqliteFile
from tests.chaos.chat import Record
from tests.chaos.rig import Rig

#: For all streams to arrive, once nothing disturbs them. A worker that has waited longest looks once a minute.
_WITHIN_S = 120.0


@asynccontextmanager
async def away(database: SqliteFile) -> AsyncIterator[None]:
    """Let the database be unusable: PostgreSQL is killed, and a file of SQLite is locked for writers."""
    if isinstance(database, PostgresServer):
        await database.kill()
        yield
        await database.start()
        return
    path = database.url.removeprefix("sqlite:///")
    connection = await asyncio.to_thread(
        sqlite3.connect, path, isolation_level=None, timeout=30, check_same_thread=False
    )
    try:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        yield
    finally:
        await asyncio.to_thread(connection.close)


async def complaints_about_archive(rig: Rig, records: Sequence[Record]) -> list[str]:
    """Let all streams that wait be archived now, and return a description of each broken promise."""
    client = connect(rig.redis_url)
    deadline = time.monotonic() + _WITHIN_S
    settings = Settings.model_construct(archive_url=SecretStr(rig.database.url))
    async with open_archive(settings, migrates=False) as archive:
        while True:
            found = [await archive.find(record.stream_id or "") for record in records]
            complaints = [
                fault for record, each in zip(records, found, strict=True) for fault in _faults(rig, record, each)
            ]
            if not complaints or time.monotonic() > deadline:
                break
            with suppress(BrokerUnavailable):
                (waiting,) = await run_commands(client, [("ZRANGE", UNARCHIVED, 0, -1)])
                if waiting:
                    await put_off(client, UNARCHIVED, [stream_id.decode() for stream_id in waiting], 0)
            await asyncio.sleep(1)
    await client.aclose()
    known = {stream_id for record in records for stream_id in record.stream_ids}
    rows = await rig.database.rows("SELECT stream_id FROM streams")
    unknown = [f"{row['stream_id']}: archived, and no client knows it" for row in rows]
    return [*complaints, *(each for row, each in zip(rows, unknown, strict=True) if row["stream_id"] not in known)]


def _faults(rig: Rig, record: Record, found: ArchivedStream | None) -> Iterator[str]:
    if record.deleted:
        if found is not None and record.is_deletion_confirmed:
            yield f"{record.stream_id}: archived, though it was deleted"
        return
    if record.final is None:
        return
    status, body, at = record.final
    if status != 200 or not body["ended_at"] or rig.history.losses_between(at, time.monotonic()):
        return
    if found is None:
        yield f"{record.stream_id}: not archived"
        return
    names = ("status", "finish_reason", "reason", "text", "usage", "ended_at")
    differing = [name for name in names if found.view[name] != body[name]]
    if differing or found.end != body["last_event_id"]:
        yield f"{record.stream_id}: archived with another {', '.join(differing) or 'last event'}"
