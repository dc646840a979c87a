"""Reads of streams that Redis has no more, on behalf of a caller.

Nobody asks the archive before Redis has said that it does not have the stream.
"""

from collections.abc import Iterable
from typing import Any

from gateway import metrics
from gateway.archive.archived_log import ArchivedLog
from gateway.auth.grants import Grant
from gateway.auth.ownership import check_owner
from gateway.state import GatewayState
from shared.archive.archive import Archive
from shared.archive.records import ArchivedStream
from shared.errors import ArchiveUnavailable, StreamArchived, StreamGone, StreamNotFound
from shared.protocol.ids import is_stream_id


async def find_archived(
    gateway: GatewayState,
    grant: Grant,
    stream_id: str,
    missing: StreamGone | StreamNotFound,
    *,
    with_request: bool = False,
) -> ArchivedStream:
    """Return the archived stream, if the grant covers it. Raises ``missing``, the error of the read from Redis, if
    the archive does not have it, and :class:`ArchiveUnavailable`, :class:`ContentUnreadable` and
    :class:`InvalidTicket`."""
    archive = gateway.archive
    if archive is None or not is_stream_id(stream_id) or (isinstance(missing, StreamGone) and missing.is_deleted):
        raise missing
    found = await _find(archive, stream_id, grant.owner, with_request=with_request)
    if found is None:
        raise missing
    await check_owner(gateway, grant, found.principal)
    return found


async def find_all_archived(
    gateway: GatewayState, grant: Grant, stream_ids: Iterable[str]
) -> dict[str, ArchivedStream]:
    """Return those of some streams that the archive has and the grant covers, without their requests. Raises as
    :func:`find_archived` does."""
    found = {}
    for stream_id in stream_ids:
        try:
            found[stream_id] = await find_archived(gateway, grant, stream_id, StreamNotFound())
        except StreamNotFound:
            continue
    return found


async def open_archived_log(
    gateway: GatewayState, grant: Grant, stream_id: str, missing: StreamGone | StreamNotFound, *, status_url: str
) -> ArchivedLog:
    """Return the log of an archived stream. Raises as :func:`find_archived` does, and :class:`StreamArchived` if the
    archive has only the answer."""
    archived = await find_archived(gateway, grant, stream_id, missing)
    if not ArchivedLog.has_cursors(archived):
        raise StreamArchived(status_url)
    return ArchivedLog(archived, gateway.hub)


def archived_view(archived: ArchivedStream) -> dict[str, Any]:
    """Return the body of ``GET /chat/{stream_id}``."""
    return {**archived.view, "position": None, "last_event_id": archived.end}


async def _find(
    archive: Archive, stream_id: str, principal: str | None, *, with_request: bool
) -> ArchivedStream | None:
    try:
        found = await archive.find(stream_id, principal, with_request=with_request)
    except ArchiveUnavailable:
        metrics.ARCHIVE_READS.labels("unavailable").inc()
        raise
    metrics.ARCHIVE_READS.labels("found" if found else "missing").inc()
    return found
