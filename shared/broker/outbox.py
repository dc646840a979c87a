"""Second steps that a process has left out: streams that have ended or are gone, and are not settled at the desk.

The index of each bucket is the outbox (docs/adr/0020): the sweep finds such a stream there.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from shared.broker.client import Client, run_commands, run_script
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.due_queues import enqueue_again
from shared.broker.keys import of_key, tombstone_key
from shared.broker.pipeline_connection import Command
from shared.broker.removal import settle_removed
from shared.broker.scripts import StreamScripts
from shared.broker.settlement import read_owed, settle, settle_ended
from shared.rate_limits import account_of

_KINDS: Final = {"deleted": Kind.DELETED, "dropped": Kind.DROPPED}


async def settle_ended_streams(client: Client, scripts: StreamScripts, stream_ids: Sequence[str]) -> None:
    """Settle streams that have ended, and take them out of their indexes; those whose webhook is not delivered yet,
    or that are not archived yet, stay there and in the queues for that. Raises :class:`BrokerUnavailable`."""
    owed = await read_owed(client, stream_ids)
    unsettled = {settlement.stream_id for settlement in owed}
    settled = [stream_id for stream_id in stream_ids if stream_id not in unsettled]
    await _all(
        *(settle_ended(client, scripts, settlement) for settlement in owed),
        *(run_script(client, scripts.paid(each, "")) for each in settled),
        enqueue_again(client, settled),
    )


async def settle_gone_streams(client: Client, scripts: StreamScripts, stream_ids: Sequence[str]) -> None:
    """Settle streams without a state: deleted, dropped, expired, or never created. Raises
    :class:`BrokerUnavailable`."""
    commands: list[Command] = []
    for stream_id in stream_ids:
        commands += [("GET", tombstone_key(stream_id)), ("HGET", of_key(stream_id), "account")]
    replies = iter(await run_commands(client, commands))
    await _all(*(_settle_gone(client, scripts, each, next(replies), next(replies)) for each in stream_ids))


async def _settle_gone(
    client: Client, scripts: StreamScripts, stream_id: str, tombstone: bytes | None, account: bytes | None
) -> None:
    word, _, principal = (tombstone or b"").decode().partition(" ")
    name = account.decode() if account is not None else account_of(principal) if principal else ""
    settlement = Settlement(stream_id, name, _KINDS.get(word, Kind.EXPIRED))
    if settlement.kind is not Kind.EXPIRED:
        await settle_removed(client, scripts, settlement)
        return
    if name:
        await settle(client, scripts, settlement)
    await run_script(client, scripts.paid(stream_id, ""))


async def _all(*steps: Coroutine[Any, Any, object]) -> None:
    """Take all steps; one that fails concerns no other. Raises :class:`BrokerUnavailable`."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
