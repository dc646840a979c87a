"""The tables of the archive, as the newest migration leaves them. Operators read them with their own SQL, so names
and meanings are a stable interface (docs/integration.md)."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Milliseconds(TypeDecorator[int]):
    """Milliseconds since 1970 here, a time in the database: with its zone in PostgreSQL, text in UTC in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(milliseconds=value)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> int | None:
        if value is None:
            return None
        at = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (at - _EPOCH) // timedelta(milliseconds=1)


METADATA: Final = MetaData()

STREAMS: Final = Table(
    "streams",
    METADATA,
    Column("stream_id", String(64), primary_key=True),
    Column("principal", Text, nullable=False),
    Column("account", String(64), nullable=False),
    Column("chat_id", Text),
    Column("status", String(16), nullable=False),
    Column("finish_reason", Text),
    Column("reason", Text),
    Column("error_code", Text),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("created_at", Milliseconds, nullable=False),
    Column("started_at", Milliseconds),
    Column("ended_at", Milliseconds, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("estimated", Boolean),
    Column("cost_nanos", BigInteger),
    Column("currency", Text),
    Column("sealed", Boolean, nullable=False),
    Column("metadata", Text),
    Column("request", Text),
    Column("answer", Text, nullable=False),
    Column("text", Text),
    Column("fields", Text, nullable=False),
    Column("events", LargeBinary, nullable=False),
    Column("has_cursors", Boolean, nullable=False),
    Column("last_event_id", String(64), nullable=False),
    Index("streams_of_principal", "principal", "created_at", "stream_id"),
    Index("streams_of_chat", "principal", "chat_id", "created_at"),
    Index("streams_by_time", "created_at"),
)

#: One row for each call of a provider, or for ``calls`` of them, if a stream has very many. It stays when the
#: stream is deleted, since it has no content.
CALLS: Final = Table(
    "calls",
    METADATA,
    Column("stream_id", String(64), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("at", Milliseconds, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("cost_nanos", BigInteger),
    Column("currency", Text, nullable=False),
    Column("calls", Integer, nullable=False),
    Index("calls_of_principal", "principal", "at"),
    Index("calls_by_time", "at"),
)

#: Streams that were deleted, so that a late write does not bring them back.
DELETED: Final = Table(
    "deleted",
    METADATA,
    Column("stream_id", String(64), primary_key=True),
    Column("deleted_at", Milliseconds, nullable=False),
    Index("deleted_by_time", "deleted_at"),
)
