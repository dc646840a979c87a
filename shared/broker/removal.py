"""Removal of a stream: its deletion by its owner, or the dropping of its answer to free storage.

Its bucket comes first, then the desk; the index of the bucket has the stream until both are done (docs/adr/0020).
"""

from contextlib import suppress
from typing import Final

from shared.broker.client import Client, run_commands, run_script
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.due_queues import AT_ONCE, enqueue
from shared.broker.keys import (
    DROPPING,
    answers_key,
    idempotency_entry_key,
    owned_key,
    state_key,
    tombstone_key,
)
from shared.broker.log import read_log
from shared.broker.pipeline_connection import Command
from shared.broker.scripts import StreamScripts
from shared.broker.settlement import settle
from shared.errors import BrokerUnavailable
from shared.priced_calls import lost_calls
from shared.protocol.ledger import LedgerEntry
from shared.protocol.lifecycle import Status

_OF_CALLS: Final = (*("accounted", "key_id", "lineage", "log_epoch", "prompt_characters", "max_tokens"),)


async def delete_stream(client: Client, scripts: StreamScripts, stream_id: str) -> bool:
    """Delete a stream's content. Return False if there was none. Raises :class:`BrokerUnavailable`."""
    lost = await _calls_of_running(client, scripts, stream_id)
    removed = await run_script(client, scripts.delete(stream_id))
    if removed is None:
        return False
    ledger = [*removed.ledger, *([] if removed.owed else lost)]
    settlement = Settlement(
        stream_id,
        removed.account,
        Kind.DELETED,
        removed.owed,
        removed.digest,
        ledger=ledger,
        is_unused=removed.is_unused,
    )
    with suppress(BrokerUnavailable):  # then the next sweep makes the second step
        await settle_removed(client, scripts, settlement)
    return True


async def undo_stream(client: Client, scripts: StreamScripts, stream_id: str) -> None:
    """Delete a stream whose request is refused after all, with its idempotency entry: a repeat is a new request.
    Raises :class:`BrokerUnavailable`."""
    (digest,) = await run_commands(client, [("HGET", state_key(stream_id), "idempotency")])
    await delete_stream(client, scripts, stream_id)
    if digest is not None:
        await run_commands(client, [("DEL", idempotency_entry_key(digest.decode()))])


async def _calls_of_running(client: Client, scripts: StreamScripts, stream_id: str) -> list[LedgerEntry]:
    """Return the calls of a running stream that its ledger does not have, estimated from their output so far."""
    (values,) = await run_commands(client, [("HMGET", state_key(stream_id), "status", *_OF_CALLS)])
    status, *rest = values
    if status != Status.RUNNING.encode():
        return []
    fields = {name: value for name, value in zip(_OF_CALLS, rest, strict=True) if value is not None}
    return lost_calls(scripts.prices, fields, await read_log(client, scripts, stream_id), "cancelled")


async def drop_answer(client: Client, scripts: StreamScripts, stream_id: str) -> int:
    """Drop the answer of a stream that has ended. Return the bytes given back; 0 if it is kept. Raises
    :class:`BrokerUnavailable`."""
    (account,) = await run_commands(client, [("HGET", state_key(stream_id), "account")])
    if account is None:  # its retention has ended
        await run_commands(client, [("ZREM", answers_key(stream_id), stream_id)])
        return 0
    if not await run_script(client, scripts.desk.may_drop(stream_id, account.decode())):
        return 0
    removed = await run_script(client, scripts.drop(stream_id))
    if removed is None:
        await run_commands(client, [("ZREM", DROPPING, stream_id)])
        return 0
    settlement = Settlement(stream_id, removed.account, Kind.DROPPED, digest=removed.digest)
    return max(1, await settle_removed(client, scripts, settlement))


async def settle_removed(client: Client, scripts: StreamScripts, settlement: Settlement) -> int:
    """Let the desk forget a stream that was removed, and remove what stays of it: its entry in the list of its
    principal and in the index, and the tombstones and idempotency entries of streams that were removed long ago. A
    worker deletes it in the archive. Return the bytes given back. Raises :class:`BrokerUnavailable`."""
    settled = await settle(client, scripts, settlement)
    commands: list[Command] = [("ZREM", owned_key(settlement.account), settlement.stream_id)]
    commands += [("DEL", tombstone_key(stream_id)) for stream_id, _ in settled.forgotten]
    commands += [("DEL", idempotency_entry_key(digest)) for _, digest in settled.forgotten if digest]
    await run_commands(client, commands)
    if settlement.kind is Kind.DELETED and scripts.has_archive:
        await enqueue(client, unarchived={settlement.stream_id: AT_ONCE})
    await run_script(client, scripts.paid(settlement.stream_id, ""))
    return settled.freed
