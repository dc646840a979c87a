"""Reads of a stream on behalf of a caller, limited to the caller's own streams."""

from collections.abc import Iterable
from contextlib import suppress

from gateway.archive.reads import read_archived_logs
from gateway.auth.grants import Grant
from gateway.auth.owner_check import check_owner
from gateway.state import GatewayState
from shared.broker.client import run_script
from shared.broker.log import StoredLog, read_logs
from shared.broker.replies import Gone, LogPage, Lost
from shared.broker.scripts import MAX_EVENTS_PER_PAGE
from shared.errors import StreamGone, StreamNotFound, StreamRecovering
from shared.protocol.ids import START, EventId, is_stream_id


async def read_own(
    gateway: GatewayState,
    grant: Grant,
    stream_id: str,
    after: EventId = START,
    *,
    most_events: int = MAX_EVENTS_PER_PAGE,
) -> LogPage:
    """Read a page of the log of a stream that the grant covers. Raises :class:`StreamNotFound` also for streams of
    others, so that ids cannot be probed, :class:`StreamGone` for the caller's own past stream,
    :class:`StreamRecovering` if Redis may have lost it a moment ago, and :class:`InvalidTicket` if the grant is a
    ticket whose owner has revoked all links."""
    if not is_stream_id(stream_id):
        raise StreamNotFound
    page = await run_script(gateway.client, gateway.scripts.read(stream_id, after, most_events=most_events))
    return await _owned(gateway, grant, page)


async def read_own_logs(
    gateway: GatewayState, grant: Grant, stream_ids: Iterable[str], *, most_bytes: int
) -> dict[str, StoredLog]:
    """Read the whole logs of streams that the grant covers, together; others are left out. Those that Redis has no
    more are read from the archive, with fewer events of the same content. Raises :class:`LogsTooLarge`, and
    :class:`StreamRecovering` as :func:`read_own` does."""
    found = await read_logs_in_redis(
        gateway, grant, known := [*filter(is_stream_id, stream_ids)], most_bytes=most_bytes
    )
    room = most_bytes - sum(len(event) for log in found.values() for event in log.events)
    missing = [stream_id for stream_id in known if stream_id not in found]
    return found | await read_archived_logs(gateway, grant, missing, most_bytes=room)


async def read_logs_in_redis(
    gateway: GatewayState, grant: Grant, stream_ids: Iterable[str], *, most_bytes: int
) -> dict[str, StoredLog]:
    """Read as :func:`read_own_logs` does, without the archive."""
    found = dict[str, StoredLog]()
    for log in await read_logs(gateway.client, gateway.scripts, stream_ids, most_bytes=most_bytes):
        with suppress(StreamNotFound, StreamGone):
            await _owned(gateway, grant, log.last)
            found[log.stream_id] = log
    return found


async def _owned(gateway: GatewayState, grant: Grant, log_page: LogPage | Gone | Lost | None) -> LogPage:
    if isinstance(log_page, Lost):
        raise StreamRecovering
    if log_page is None:
        raise StreamNotFound
    await check_owner(gateway, grant, log_page.principal)
    if isinstance(log_page, Gone):
        raise StreamGone(is_deleted=log_page.deleted)
    return log_page
