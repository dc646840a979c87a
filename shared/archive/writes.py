"""Writes and deletions of streams. They exclude each other, so that a late write does not undo a deletion."""

import time
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.archive.engine import DELETION_LOCK, lock
from shared.archive.records import ArchivedStream
from shared.archive.tables import CALLS, DELETED, STREAMS
from shared.protocol.ledger import LedgerEntry

#: A deletion is kept for longer than any process can hold a stream that it has still to write.
_DELETED_MS: Final = 30 * 86_400_000


async def write_streams(
    connection: AsyncConnection, streams: Sequence[ArchivedStream], rows: Sequence[dict[str, Any]]
) -> None:
    """Write streams, except those that were deleted or ended later, and their calls. ``rows``: the streams as rows of
    the table, in the same order in each process."""
    await lock(connection, DELETION_LOCK, shared=True)
    ids = [stream.stream_id for stream in streams]
    deleted = set(await connection.scalars(select(DELETED.c.stream_id).where(DELETED.c.stream_id.in_(ids))))
    kept = [row for row in rows if row["stream_id"] not in deleted]
    if kept:
        await connection.execute(_upsert(connection, STREAMS), kept)
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
    # A stream that was deleted has no row that another writer of its calls would wait for.
    await connection.execute(_upsert(connection, CALLS), calls)


async def delete_stream(connection: AsyncConnection, stream_id: str) -> bool:
    """Delete a stream, and note it. Return False if there was none."""
    now = time.time_ns() // 1_000_000
    await lock(connection, DELETION_LOCK)
    await connection.execute(delete(DELETED).where(DELETED.c.deleted_at < now - _DELETED_MS))
    note = _insert(connection, DELETED).on_conflict_do_nothing()
    await connection.execute(note, {"stream_id": stream_id, "deleted_at": now})
    removed = await connection.execute(delete(STREAMS).where(STREAMS.c.stream_id == stream_id))
    return removed.rowcount > 0


def _upsert(connection: AsyncConnection, table: Table) -> Any:
    """Return an insertion that replaces rows, those of streams only if they have not ended later."""
    insert = _insert(connection, table)
    changed = {column.name: insert.excluded[column.name] for column in table.c if not column.primary_key}
    where = STREAMS.c.ended_at <= insert.excluded.ended_at if table is STREAMS else None
    return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed, where=where)


def _insert(connection: AsyncConnection, table: Table) -> Any:
    """Return an insertion that can handle conflicts, which both databases write the same way."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _call_of(entry: LedgerEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in LedgerEntry.__struct_fields__}
