"""Webhooks that are to be delivered (``due_queues.py``), and the streams whose webhooks were given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client, run_commands, run_script
from shared.broker.due_queues import AT_ONCE, put_off
from shared.broker.keys import DELIVERIES, dead_letters_keys, state_key
from shared.broker.pipeline_connection import Command
from shared.broker.scripts import Delivery, StreamScripts

_FIELDS: Final = ("webhook", "undelivered", "delivery_failures", "delivery_error", "status", "ended", "idempotency")


@dataclass(frozen=True, slots=True)
class OwedWebhook:
    """A webhook that was not delivered. ``since``: ms, from when on it is due. ``next_at``: of its next try, ms; None
    if it was given up."""

    stream_id: str
    url: str
    status: str
    since: int
    failures: int
    error: str
    next_at: int | None


async def list_owed(client: Client, most: int) -> list[OwedWebhook]:
    """Return webhooks that were given up, the latest first, and then those in the queue by their time. Raises
    :class:`BrokerUnavailable`."""
    pages: list[Command] = [("ZREVRANGE", key, 0, most - 1, "WITHSCORES") for key in dead_letters_keys()]
    queue, *dead = await run_commands(client, [("ZRANGE", DELIVERIES, 0, most - 1, "WITHSCORES"), *pages])
    given_up = sorted((pair for page in dead for pair in _pairs(page)), key=lambda pair: -pair[1])
    found: list[tuple[str, int | None]] = [(stream_id, None) for stream_id, _ in given_up]
    found += _pairs(queue)
    found = found[:most]
    commands: list[Command] = [("HMGET", state_key(stream_id), *_FIELDS) for stream_id, _ in found]
    states = await run_commands(client, commands) if commands else []
    owed = []
    for (stream_id, next_at), values in zip(found, states, strict=True):
        url, since, failures, error, status, ended, _ = ((value or b"").decode() for value in values)
        if url:  # else it was deleted
            owed.append(
                OwedWebhook(stream_id, url, status, int(since or ended or 0), int(failures or 0), error, next_at)
            )
    return owed


async def count_owed(client: Client) -> tuple[int, int]:
    """Return the numbers of webhooks in the queue, and of those that were given up. Raises
    :class:`BrokerUnavailable`."""
    waiting, *dead = await run_commands(client, [("ZCARD", key) for key in (DELIVERIES, *dead_letters_keys())])
    return waiting, sum(dead)


async def deliver_again(client: Client, scripts: StreamScripts, stream_id: str) -> bool:
    """Let a webhook be delivered now that waits, was given up or was delivered before. Return False if the stream has
    none, runs or is gone. Raises :class:`BrokerUnavailable`."""
    (digest,) = await run_commands(client, [("HGET", state_key(stream_id), "idempotency")])
    call = scripts.deliver(stream_id, digest.decode() if digest else None, Delivery.WANTED, "")
    if not await run_script(client, call):
        return False
    await put_off(client, DELIVERIES, [stream_id], AT_ONCE)
    return True


def _pairs(flat: Sequence[bytes]) -> list[tuple[str, int]]:
    return [(stream_id.decode(), int(float(at))) for stream_id, at in zip(flat[::2], flat[1::2], strict=True)]
