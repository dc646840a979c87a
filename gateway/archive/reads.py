"""Reads of streams that Redis has no more, on behalf of a caller.

Nobody asks the archive before Redis has said that it does not have the stream.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from gateway import metrics
from gateway.api.response_models import StreamStatus
from gateway.archive.archived_log import ArchivedLog
from gateway.auth.grants import Grant
from gateway.auth.owner_check import check_owner
from gateway.intake.body_memory import take_memory
from gateway.state import GatewayState
from shared.archive.records import ArchivedStream
from shared.broker.log import LogsTooLarge, StoredLog
from shared.broker.status import read_fields
from shared.broker.stored_request import request_sizes
from shared.errors import ArchiveUnavailable, StreamGone, StreamNotFound
from shared.protocol.ids import is_stream_id, parse_event_id

if TYPE_CHECKING:
    from shared.archive.archive import Archive


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


async def read_archived_logs(
    gateway: GatewayState, grant: Grant, stream_ids: Sequence[str], *, most_bytes: int
) -> dict[str, StoredLog]:
    """Return the logs of those streams that the archive has and the grant's owner owns. Raises
    :class:`LogsTooLarge`, :class:`ArchiveUnavailable` and :class:`ContentUnreadable`."""
    archive, logs, size = gateway.archive, dict[str, StoredLog](), 0
    if archive is None or grant.owner is None or not stream_ids:
        return logs
    for listed in await archive.list_some(grant.owner, stream_ids):
        archived = await _find(archive, listed.stream_id, grant.owner, with_request=False)
        if archived is not None:
            end = parse_event_id(archived.end)
            logs[listed.stream_id] = StoredLog(listed.stream_id, archived.events, is_read=True, cursor=end)
            size += sum(map(len, archived.events))
        if size > most_bytes:
            raise LogsTooLarge
    return logs


async def read_stored_fields(gateway: GatewayState, stream_id: str, names: Sequence[str]) -> dict[str, str | None]:
    """Return some fields of a stream's state, among them ``status``: from Redis, or else from the archive. The caller
    must be authorised already. Raises as :func:`read_fields` does, and :class:`ArchiveUnavailable`."""
    fields = await read_fields(gateway.client, gateway.scripts.sealing, stream_id, names)
    if fields["status"] is not None or gateway.archive is None:
        return fields
    with_request = "request" in names
    if with_request:
        await take_memory(await gateway.archive.request_bytes(stream_id))
    archived = await _find(gateway.archive, stream_id, None, with_request=with_request)
    if archived is None:
        return fields
    known = {**archived.fields, "status": archived.status, "request": archived.request.decode() or None}
    return {name: known.get(name) for name in names}


async def stored_request_bytes(gateway: GatewayState, stream_ids: Sequence[str]) -> list[int]:
    """Return the sizes of stored requests, in Redis or else in the archive. Raises :class:`BrokerUnavailable` and
    :class:`ArchiveUnavailable`."""
    sizes = await request_sizes(gateway.client, stream_ids)
    archived = dict[str, int]()
    if gateway.archive is not None:
        archived = await gateway.archive.request_sizes([each for each, size in sizes.items() if size is None])
    return [size or archived.get(each, 0) for each, size in sizes.items()]


async def open_archived_log(
    gateway: GatewayState, grant: Grant, stream_id: str, missing: StreamGone | StreamNotFound, *, status_url: str
) -> ArchivedLog:
    """Return the log of an archived stream. Raises as :func:`find_archived` does, and :class:`StreamArchived` if the
    archive has only the answer."""
    archived = await find_archived(gateway, grant, stream_id, missing)
    return ArchivedLog.of(archived, gateway.hub, status_url=status_url)


def archived_view(archived: ArchivedStream) -> StreamStatus:
    """Return the body of ``GET /chat/{stream_id}``."""
    members = dict.fromkeys(StreamStatus.__annotations__)  # an older version may have archived fewer
    return cast(StreamStatus, {**members, **archived.view, "position": None, "last_event_id": archived.end})


async def _find(
    archive: "Archive", stream_id: str, principal: str | None, *, with_request: bool
) -> ArchivedStream | None:
    try:
        found = await archive.find(stream_id, principal, with_request=with_request)
    except ArchiveUnavailable:
        metrics.ARCHIVE_READS.labels("unavailable").inc()
        raise
    metrics.ARCHIVE_READS.labels("found" if found else "missing").inc()
    return found
