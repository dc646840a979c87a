"""Queues at the desk of streams that have ended: those with a webhook to deliver, and those to write to the archive.

The state of a stream has the debt (``undelivered``, ``unarchived``), and the index of its bucket has the stream until
that is paid. The queues follow from them: the sweep puts a stream into them again that Redis has lost there.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from shared.broker.client import Client, run_commands
from shared.broker.keys import DELIVERIES, UNARCHIVED, state_key
from shared.broker.pipeline_connection import Command

#: Life of a queue after the last change.
_LIFE_MS: Final = 172_800_000
#: A time that has come for any clock.
AT_ONCE: Final = 0


async def enqueue(
    client: Client, *, deliveries: Sequence[str] = (), unarchived: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Let webhooks be delivered and streams be archived now; those in the queues keep their time. ``unarchived``: by
    id, since when, so that the oldest come first. Raises :class:`BrokerUnavailable`."""
    commands: list[Command] = []
    for queue, due in ((DELIVERIES, dict.fromkeys(deliveries, AT_ONCE)), (UNARCHIVED, unarchived)):
        if due:
            flat = [item for stream_id, at in due.items() for item in (at, stream_id)]
            commands += [("ZADD", queue, "NX", *flat), ("PEXPIRE", queue, _LIFE_MS)]
    if commands:
        await run_commands(client, commands)


async def enqueue_again(client: Client, stream_ids: Sequence[str]) -> None:
    """Do so for the streams with such a debt in their states. Raises :class:`BrokerUnavailable`."""
    if not stream_ids:
        return
    commands: list[Command] = [
        ("HMGET", state_key(stream_id), "undelivered", "unarchived") for stream_id in stream_ids
    ]
    found = list(zip(stream_ids, await run_commands(client, commands), strict=True))
    await enqueue(
        client,
        deliveries=[stream_id for stream_id, (undelivered, _) in found if undelivered is not None],
        unarchived={stream_id: int(unarchived) for stream_id, (_, unarchived) in found if unarchived is not None},
    )


async def put_off(client: Client, queue: str, stream_ids: Sequence[str], until_ms: int) -> None:
    """Let streams be due at ``until_ms``. Raises :class:`BrokerUnavailable`."""
    due = [item for stream_id in stream_ids for item in (until_ms, stream_id)]
    await run_commands(client, [("ZADD", queue, *due), ("PEXPIRE", queue, _LIFE_MS)])


async def remove(client: Client, queue: str, stream_ids: Sequence[str]) -> None:
    """Take streams out of a queue. Raises :class:`BrokerUnavailable`."""
    await run_commands(client, [("ZREM", queue, *stream_ids)])
