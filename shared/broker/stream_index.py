"""Index of each principal's streams: ``hr:owned:<account>``, a sorted set of ids by their time of creation.

Ids of streams that are gone are skipped. Streams beyond the newest 10,000 (creation.py) can be read but are not
listed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from shared.broker.client import Client, run_commands
from shared.broker.keys import principal_streams_key, state_key
from shared.broker.sealing import Sealing
from shared.broker.status import time_of

#: Ids read beyond a page: some have the millisecond of the page's end, and some streams are gone.
_SPARE: Final = 64
_FIELDS: Final = ("status", "provider", "model", "finish_reason", "metadata", "created", "ended", "chat")


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a list. ``next_page`` is its end's position; None if it is the last page."""

    streams: list[dict[str, Any]]
    next_page: str | None


async def list_principal_streams(
    client: Client, sealing: Sealing, principal: str, *, most: int, page: tuple[int, str] | None
) -> Listed:
    """List a principal's streams, the newest first, from after ``page``: (time, id) of the last one seen. Raises
    :class:`BrokerUnavailable` and :class:`ContentUnreadable`."""
    top = "+inf" if page is None else page[0]
    command = (
        "ZRANGE",
        principal_streams_key(principal),
        top,
        "-inf",
        "BYSCORE",
        "REV",
        "LIMIT",
        0,
        most + _SPARE,
        "WITHSCORES",
    )
    (flat,) = await run_commands(client, [command])
    found = [(int(score), name.decode()) for name, score in zip(flat[::2], flat[1::2], strict=True)]
    found = [entry for entry in found if page is None or entry < page]
    states = (
        await run_commands(client, [("HMGET", state_key(stream_id), *_FIELDS) for _, stream_id in found])
        if found
        else []
    )
    streams: list[dict[str, Any]] = []
    for (created, stream_id), state in zip(found, states, strict=True):
        if state[0] is not None:
            streams.append(_summary(stream_id, sealing.texts(stream_id, _FIELDS, state)))
        if len(streams) == most:
            return Listed(streams, f"{created}-{stream_id}")
    return Listed(streams, f"{found[-1][0]}-{found[-1][1]}" if len(found) >= most else None)


def parse_page(text: str) -> tuple[int, str] | None:
    """Parse a ``next_page``; None if it is invalid."""
    at, dash, stream_id = text.partition("-")
    return (int(at), stream_id) if dash and at.isascii() and at.isdecimal() and len(at) < 16 else None


def _summary(stream_id: str, text: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "chat_id": text["chat"],
        "status": text["status"],
        "provider": text["provider"],
        "model": text["model"],
        "finish_reason": text["finish_reason"],
        "metadata": msgspec.json.decode(text["metadata"] or "{}"),
        "created_at": time_of(text["created"]),
        "ended_at": time_of(text["ended"]),
    }
