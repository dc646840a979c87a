"""Deletion of a stream for its owner: from the archive first, then from Redis."""

from gateway.archive.reads import find_archived
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.auth.principal import Principal
from gateway.state import GatewayState
from shared.broker.client import run_commands
from shared.broker.keys import state_key
from shared.broker.removal import delete_stream
from shared.errors import StreamGone, StreamNotFound


async def delete_own(gateway: GatewayState, caller: Principal, stream_id: str) -> None:
    """Cancel a running stream and delete its content. Raises :class:`StreamNotFound` and :class:`StreamGone`, and
    :class:`ArchiveUnavailable` before anything is deleted.

    The archive notes the deletion first: from then on no worker can write the stream there any more, whatever
    happens to this process. If the deletion in Redis then fails, the caller repeats both."""
    grant = Grant.of(caller)
    try:
        await read_own(gateway, grant, stream_id, most_events=0)
    except (StreamGone, StreamNotFound) as error:
        if isinstance(error, StreamGone) and error.is_deleted:
            # The archive may have been set up, or have missed the deletion, since: a repetition reaches it too.
            if gateway.archive is not None:
                await gateway.archive.delete(stream_id)
            raise
        await find_archived(gateway, grant, stream_id, error)
        if gateway.archive is not None:
            await gateway.archive.delete(stream_id)
        return
    if gateway.archive is not None and await _is_for_archive(gateway, stream_id):
        await gateway.archive.delete(stream_id)
    if not await delete_stream(gateway.client, gateway.scripts, stream_id):
        raise StreamGone


async def _is_for_archive(gateway: GatewayState, stream_id: str) -> bool:
    (field,) = await run_commands(gateway.client, [("HGET", state_key(stream_id), "archive")])
    return field is not None
