"""The first schema: streams, calls of providers, and deleted streams."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_streams()
    _create_calls()
    op.create_table(
        "deleted",
        sa.Column("stream_id", sa.String(64), primary_key=True),
        sa.Column("deleted_at", _TIME, nullable=False),
    )
    op.create_index("deleted_by_time", "deleted", ["deleted_at"])


def _create_streams() -> None:
    op.create_table(
        "streams",
        sa.Column("stream_id", sa.String(64), primary_key=True),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("chat_id", sa.Text),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("finish_reason", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("error_code", sa.Text),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("ended_at", _TIME, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("estimated", sa.Boolean),
        sa.Column("cost_nanos", sa.BigInteger),
        sa.Column("currency", sa.Text),
        sa.Column("sealed", sa.Boolean, nullable=False),
        sa.Column("metadata", sa.Text),
        sa.Column("request", sa.Text),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("fields", sa.Text, nullable=False),
        sa.Column("events", sa.LargeBinary, nullable=False),
        sa.Column("has_cursors", sa.Boolean, nullable=False),
        sa.Column("last_event_id", sa.String(64), nullable=False),
    )
    op.create_index("streams_of_principal", "streams", ["principal", "created_at", "stream_id"])
    op.create_index("streams_of_chat", "streams", ["principal", "chat_id", "created_at"])
    op.create_index("streams_by_time", "streams", ["created_at"])


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("stream_id", sa.String(64), primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost_nanos", sa.BigInteger),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
    )
    op.create_index("calls_of_principal", "calls", ["principal", "at"])
    op.create_index("calls_by_time", "calls", ["at"])
