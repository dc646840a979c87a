"""Judges whether each ending reached the receiver of webhooks: at least once, and as the stream has it."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from shared.broker.client import connect, run_commands
from shared.broker.due_queues import put_off
from shared.broker.keys import DELIVERIES
from shared.errors import BrokerUnavailable
from tests.chaos.chat import Record
from tests.chaos.rig import Rig

#: For all webhooks to arrive, once nothing disturbs them.
_WITHIN_S = 90.0


async def complaints_about_webhooks(rig: Rig, records: Sequence[Record]) -> list[str]:
    """Let all webhooks that wait be sent now, and return a description of each broken promise."""
    client = connect(rig.redis_url)
    deadline = time.monotonic() + _WITHIN_S
    while any(_missing(rig, record) for record in records) and time.monotonic() < deadline:
        with suppress(BrokerUnavailable):
            (waiting,) = await run_commands(client, [("ZRANGE", DELIVERIES, 0, -1)])
            if waiting:
                await put_off(client, DELIVERIES, [stream_id.decode() for stream_id in waiting], 0)
        await asyncio.sleep(1)
    await client.aclose()
    return [complaint for record in records for complaint in _faults(rig, record)]


def _faults(rig: Rig, record: Record) -> Iterator[str]:
    if missing := _missing(rig, record):
        yield f"{record.stream_id}: {missing}"
    deliveries = rig.receiver.of(record.stream_id or "-")
    if len({each.id for each in deliveries}) < len({each.body for each in deliveries}):
        yield f"{record.stream_id}: one webhook with two bodies"
    has_lost = bool(rig.history.losses_between(record.requested_at, time.monotonic()))
    if len({each.id for each in deliveries}) > 1 and not has_lost:
        yield f"{record.stream_id}: webhooks of {len(deliveries)} endings"


def _is_about(event: dict[str, Any], ending: dict[str, Any]) -> bool:
    """Return True if an event is about this ending. OpenAI's events of a response have its id and status alone."""
    data: dict[str, Any] = event["data"]
    if event["type"].startswith("response."):
        expected = f"response.{ending['status']}", f"resp_{ending['stream_id']}"
        return expected == (event["type"], data["id"])
    return all(data[name] == ending[name] for name in ("status", "finish_reason", "text", "usage", "ended_at"))


def _missing(rig: Rig, record: Record) -> str | None:
    """Return a description of the webhook that the receiver lacks, if any."""
    if record.final is None or record.deleted:
        return None
    status, body, at = record.final
    if status != 200 or not body["ended_at"] or rig.history.losses_between(at, time.monotonic()):
        return None
    told = [each.event for each in rig.receiver.of(body["stream_id"])]
    if any(_is_about(event, body) for event in told):
        return None
    return f"no webhook about its ending as {body['status']}, but {len(told)} others" if told else "no webhook"
