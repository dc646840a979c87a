"""Reads a stream's state, for the JSON view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import state_key
from shared.broker.sealing import Sealing
from shared.protocol.ledger import Cost, cost_of_calls, decode_ledger
from shared.protocol.usage import decode_usage

STATE_FIELDS = (
    "status", "finish_reason", "reason", "provider", "model", "attempt", "metadata", "created", "started", "ended",
    "usage_final", "ledger",
    "chat",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream's state. Times are ISO 8601 in UTC; None if the event has not happened. ``usage_final`` and
    ``cost_final``: by the provider's count, if that came after the end of a cancelled answer."""

    status: str
    finish_reason: str | None
    reason: str | None
    provider: str
    model: str
    attempt: int
    metadata: dict[str, Any]
    created_at: str | None
    started_at: str | None
    ended_at: str | None
    usage_final: dict[str, Any] | None = None
    cost_final: Cost | None = None
    chat_id: str | None = None


async def read_state(client: Client, sealing: Sealing, stream_id: str) -> StreamState | None:
    """Return the state; None if there is none. Raises :class:`BrokerUnavailable` and :class:`ContentUnreadable`."""
    (values,) = await run_commands(client, [("HMGET", state_key(stream_id), *STATE_FIELDS)])
    text = sealing.texts(stream_id, STATE_FIELDS, values)
    return state_of(text) if text["status"] is not None else None


def state_of(text: Mapping[str, str | None]) -> StreamState:
    """Return the state with these fields, which are opened."""
    return StreamState(
        status=text["status"] or "",
        finish_reason=text["finish_reason"],
        reason=text["reason"],
        provider=text["provider"] or "",
        model=text["model"] or "",
        attempt=int(text["attempt"] or 0),
        metadata=msgspec.json.decode(text["metadata"] or "{}"),
        created_at=time_of(text["created"]),
        started_at=time_of(text["started"]),
        ended_at=time_of(text["ended"]),
        usage_final=(usage_final := decode_usage(text["usage_final"])),
        cost_final=cost_of_calls(decode_ledger(text["ledger"])) if usage_final else None,
        chat_id=text["chat"],
    )


async def read_field(client: Client, sealing: Sealing, stream_id: str, name: str) -> str | None:
    """Return a field that a dialect stored in the state. Raises as :func:`read_state` does."""
    return (await read_fields(client, sealing, stream_id, (name,)))[name]


async def read_fields(
    client: Client, sealing: Sealing, stream_id: str, names: Sequence[str]
) -> dict[str, str | None]:
    """Return some fields of the state. Raises as :func:`read_state` does."""
    (values,) = await run_commands(client, [("HMGET", state_key(stream_id), *names)])
    return sealing.texts(stream_id, names, values)


def time_of(ms: str | None) -> str | None:
    """Format one of the state's times."""
    return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat(timespec="milliseconds") if ms else None
