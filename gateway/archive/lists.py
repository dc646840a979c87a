"""Lists of a principal's streams with those that only the archive has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.state import GatewayState
from shared.archive.records import Filters, ListedStream
from shared.broker.status import time_of
from shared.broker.stream_index import (
    Listed,
    Position,
    Scanned,
    are_listed,
    list_principal_streams,
    position_text,
    scan_principal_streams,
)
from shared.errors import ArchiveUnavailable

if TYPE_CHECKING:
    from shared.archive.archive import Archive


@dataclass(frozen=True, slots=True)
class MergedPage:
    """One page of a list. ``is_complete``: False if the archive was unavailable, so that its streams are missing."""

    listed: Listed
    is_complete: bool = True


async def search(archive: "Archive", principal: str, filters: Filters, *, most: int, page: Position | None) -> Listed:
    """Return archived streams that meet the conditions, the newest first. Raises :class:`ArchiveUnavailable`."""
    found = await archive.list_streams(principal, most=most + 1, before=page, filters=filters)
    streams = [_summary(each) for each in found[:most]]
    return Listed(streams, position_text(_position(found[most - 1])) if len(found) > most else None)


async def list_all(gateway: GatewayState, principal: str, *, most: int, page: Position | None) -> MergedPage:
    """Return all of a principal's streams, the newest first, each once. Raises :class:`BrokerUnavailable`."""
    client, sealing, archive = gateway.client, gateway.scripts.sealing, gateway.archive
    if archive is None:
        return MergedPage(await list_principal_streams(client, sealing, principal, most=most, page=page))
    # Redis first: what it forgets meanwhile, the archive has.
    scanned = await scan_principal_streams(client, sealing, principal, most=most, page=page)
    gone = [stream_id for (_, stream_id), summary in scanned.summaries.items() if summary is None]
    try:
        archived = await archive.list_some(principal, gone)
        others = await archive.list_streams(principal, most=most, before=page)
    except ArchiveUnavailable:
        listed = await list_principal_streams(client, sealing, principal, most=most, page=page)
        return MergedPage(listed, is_complete=False)
    in_index = await are_listed(client, principal, [each.stream_id for each in others])
    unlisted = [each for each, is_listed in zip(others, in_index, strict=True) if not is_listed]
    end = _position(others[-1]) if len(others) == most else None
    return MergedPage(_merged(scanned, archived, unlisted, end, most))


def _merged(
    scanned: Scanned, archived: list[ListedStream], unlisted: list[ListedStream], end: Position | None, most: int
) -> Listed:
    """Return a page of both. Streams of the index have its position, all others that of the archive. ``end``: where
    the archive was read to, if it may have more. What is beyond the end of either is left to the next page."""
    by_id = {each.stream_id: _summary(each) for each in archived}
    entries: dict[Position, dict[str, Any]] = {}
    for position, summary in scanned.summaries.items():
        found = summary if summary is not None else by_id.get(position[1])
        if found is not None:
            entries[position] = found
    ids = {stream_id for _, stream_id in scanned.summaries}
    entries |= {_position(each): _summary(each) for each in unlisted if each.stream_id not in ids}
    ends = [] if scanned.is_last else [next(reversed(scanned.summaries))]
    bound = max([*ends, *([end] if end is not None else [])], default=None)
    ordered = sorted((each for each in entries if bound is None or each >= bound), reverse=True)
    following = ordered[most - 1] if len(ordered) > most else bound
    streams = [entries[position] for position in ordered[:most]]
    return Listed(streams, None if following is None else position_text(following))


def _position(listed: ListedStream) -> Position:
    return listed.created, listed.stream_id


def _summary(listed: ListedStream) -> dict[str, Any]:
    return {
        "stream_id": listed.stream_id,
        "chat_id": listed.chat_id,
        "status": listed.status,
        "provider": listed.provider,
        "model": listed.model,
        "finish_reason": listed.finish_reason,
        "metadata": listed.metadata,
        "created_at": time_of(str(listed.created)),
        "ended_at": time_of(str(listed.ended)),
    }
