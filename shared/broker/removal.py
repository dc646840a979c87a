"""Removal of a stream: its deletion by its owner, or the dropping of its answer to free storage."""

from shared.broker.client import Client, run_commands, run_script
from shared.broker.keys import idempotency_entry_key, tombstone_key
from shared.broker.pipeline_connection import Command
from shared.broker.scripts import StreamScripts


async def delete_stream(client: Client, scripts: StreamScripts, stream_id: str, principal: str) -> bool:
    """Delete a stream's content. Return False if there was none. Raises :class:`BrokerUnavailable`."""
    forgotten = await run_script(client, scripts.delete(stream_id, principal))
    if forgotten is None:
        return False
    await _forget(client, forgotten)
    return True


async def drop_answer(client: Client, scripts: StreamScripts, stream_id: str) -> int:
    """Drop the answer of a stream that has ended. Return the bytes given back; 0 if it is kept. Raises
    :class:`BrokerUnavailable`."""
    given_back, forgotten = await run_script(client, scripts.drop(stream_id))
    await _forget(client, forgotten)
    return given_back


async def _forget(client: Client, removed: list[tuple[str, str]]) -> None:
    """Delete the tombstones and idempotency entries of streams that were removed long ago."""
    commands: list[Command] = [("DEL", tombstone_key(stream_id)) for stream_id, _ in removed]
    commands += [("DEL", idempotency_entry_key(digest)) for _, digest in removed if digest]
    if commands:
        await run_commands(client, commands)
