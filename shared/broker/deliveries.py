"""Queue of the webhooks that are to be delivered, at the desk; and the streams whose webhooks were given up.

The state of a stream has what is owed to its receiver (``undelivered``), and the index of its bucket has the stream
until that is delivered. The queue follows from them: the sweep puts a stream into it again that Redis has lost there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shared.broker.client import Client, run_commands, run_script
from shared.broker.keys import DELIVERIES, dead_letters_keys, state_key
from shared.broker.pipeline_connection import Command
from shared.broker.scripts import Delivery, StreamScripts

#: Life of the queue after the last change.
_LIFE_MS: Final = 172_800_000
#: A time that has come for any clock.
_AT_ONCE: Final = 0
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


async def enqueue_deliveries(client: Client, stream_ids: Sequence[str]) -> None:
    """Let webhooks be delivered now; those in the queue keep their time. Raises :class:`BrokerUnavailable`."""
    if not stream_ids:
        return
    due = [item for stream_id in stream_ids for item in (_AT_ONCE, stream_id)]
    await run_commands(client, [("ZADD", DELIVERIES, "NX", *due), ("PEXPIRE", DELIVERIES, _LIFE_MS)])


async def enqueue_undelivered(client: Client, stream_ids: Sequence[str]) -> None:
    """Do so for those of some streams that have a webhook which is not delivered. Raises
    :class:`BrokerUnavailable`."""
    commands: list[Command] = [("HGET", state_key(stream_id), "undelivered") for stream_id in stream_ids]
    found = await run_commands(client, commands) if commands else []
    waiting = [stream_id for stream_id, since in zip(stream_ids, found, strict=True) if since is not None]
    await enqueue_deliveries(client, waiting)


async def put_off(client: Client, stream_id: str, until_ms: int) -> None:
    """Let a webhook be due at ``until_ms``. Raises :class:`BrokerUnavailable`."""
    await run_commands(client, [("ZADD", DELIVERIES, until_ms, stream_id), ("PEXPIRE", DELIVERIES, _LIFE_MS)])


async def remove(client: Client, stream_id: str) -> None:
    """Take a webhook out of the queue. Raises :class:`BrokerUnavailable`."""
    await run_commands(client, [("ZREM", DELIVERIES, stream_id)])


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
    await put_off(client, stream_id, _AT_ONCE)
    return True


def _pairs(flat: Sequence[bytes]) -> list[tuple[str, int]]:
    return [(stream_id.decode(), int(float(at))) for stream_id, at in zip(flat[::2], flat[1::2], strict=True)]
