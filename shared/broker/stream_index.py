"""Index of each principal's streams: ``hr:owned:<account>``, a sorted set of ids by their time of creation.

Ids of streams that are gone are skipped. Streams beyond the newest 10,000 (creation.py) can be read but are not
listed.
"""

from collections.abc import Mapping, Sequence
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


#: Position in a list, as ``next_page`` has it: time of the entry and stream id.
Position = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Scanned:
    """Consecutive entries of the index, the newest first. ``summaries``: of the streams that Redis still has, by
    position; None for the others. ``is_last``: no entry follows."""

    summaries: dict[Position, dict[str, Any] | None]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a list. ``next_page`` is its end's position; None if it is the last page."""

    streams: list[dict[str, Any]]
    next_page: str | None


async def list_principal_streams(
    client: Client, sealing: Sealing, principal: str, *, most: int, page: tuple[int, str] | None
) -> Listed:
    """List a principal's streams, the newest first, from after ``page``: (time, id) of the last one seen. A
    stream that cannot be decrypted is listed without metadata and chat. Raises :class:`BrokerUnavailable`."""
    scanned = await scan_principal_streams(client, sealing, principal, most=most, page=page)
    streams: list[dict[str, Any]] = []
    for (created, stream_id), summary in scanned.summaries.items():
        if summary is not None:
            streams.append(summary)
        if len(streams) == most:
            return Listed(streams, f"{created}-{stream_id}")
    return Listed(streams, None if scanned.is_last else position_text(next(reversed(scanned.summaries))))


async def scan_principal_streams(
    client: Client, sealing: Sealing, principal: str, *, most: int, page: Position | None
) -> Scanned:
    """Read the entries of a principal's index after ``page``: ``most`` ones, and some more. Raises as
    :func:`list_principal_streams` does."""
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
    summaries = {
        (created, stream_id): None
        if state[0] is None
        else _summary(stream_id, sealing.readable_texts(stream_id, _FIELDS, state))
        for (created, stream_id), state in zip(found, states, strict=True)
    }
    return Scanned(summaries, is_last=len(found) < most)


async def are_listed(client: Client, principal: str, stream_ids: Sequence[str]) -> list[bool]:
    """Return for each stream whether the index of its principal has it. Raises :class:`BrokerUnavailable`."""
    if not stream_ids:
        return []
    (scores,) = await run_commands(client, [("ZMSCORE", principal_streams_key(principal), *stream_ids)])
    return [score is not None for score in scores]


def position_text(position: Position) -> str:
    """Format a ``next_page``."""
    return f"{position[0]}-{position[1]}"


def parse_page(text: str) -> tuple[int, str] | None:
    """Parse a ``next_page``; None if it is invalid."""
    at, dash, stream_id = text.partition("-")
    is_time = dash and at.isascii() and at.isdecimal() and len(at) < 16
    return (int(at), stream_id) if is_time and "\0" not in stream_id else None  # PostgreSQL takes no NUL


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
