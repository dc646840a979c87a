"""Second step of an ending: the desk frees what the stream held there, and counts it (docs/adr/0020).

The stream's bucket comes first. Its index has the stream until the desk has settled it, so the sweep makes a second
step that is missing. All steps may be repeated.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from shared.broker.client import Client, run_commands, run_script
from shared.broker.desk_replies import Settled
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.due_queues import AT_ONCE, enqueue
from shared.broker.keys import account_keys, state_key
from shared.broker.pipeline_connection import Command
from shared.broker.replies import Owed
from shared.broker.scripts import StreamScripts
from shared.errors import BrokerUnavailable
from shared.protocol.ledger import decode_ledger

logger = logging.getLogger(__name__)

_TRIES: Final = 4
_ENDING: Final = (
    *("status", "reason", "owed", "ended", "account", "idempotency", "undelivered", "unarchived"),
    *("ledger", "key_id", "budgets"),
)


async def settle(client: Client, scripts: StreamScripts, settlement: Settlement, held: str = "") -> Settled:
    """Let the desk forget a stream. ``held``: its lanes, as far as the caller knows them, one a line. Raises
    :class:`BrokerUnavailable`."""
    for _ in range(_TRIES):
        reply = await run_script(client, scripts.desk.settle(settlement, held))
        if isinstance(reply, Settled):
            return reply
        held = reply.lanes
        settlement = replace(settlement, budgets=reply.budgets or settlement.budgets)
    raise BrokerUnavailable(detail="the lanes of a stream that has ended do not stay the same")


async def settle_ended(client: Client, scripts: StreamScripts, settlement: Settlement, held: str = "") -> None:
    """Settle a stream that has ended, and take it out of its index, unless its webhook has to be delivered or it has
    to be archived: then it is put into the queues of those. Raises :class:`BrokerUnavailable`."""
    await settle(client, scripts, settlement, held)
    ended = settlement.owed.ended if settlement.owed else AT_ONCE
    await enqueue(
        client,
        deliveries=[settlement.stream_id] * settlement.has_webhook,
        unarchived={settlement.stream_id: ended} if settlement.has_archive else {},
    )
    await run_script(client, scripts.paid(settlement.stream_id, settlement.owed.text if settlement.owed else ""))


async def settle_soon(client: Client, scripts: StreamScripts, settlement: Settlement, held: str = "") -> None:
    """Settle a stream as :func:`settle_ended` does; while Redis is unavailable, leave it to the sweep."""
    try:
        await settle_ended(client, scripts, settlement, held)
    except BrokerUnavailable:
        logger.debug("stream not settled", extra={"stream_id": settlement.stream_id})


async def settle_account(client: Client, scripts: StreamScripts, account: str) -> None:
    """Settle the streams of an account that have ended, so that their slots are free: a client that has seen the end
    of one may send its next request before the worker has settled it. Raises :class:`BrokerUnavailable`."""
    (counted,) = await run_commands(client, [("ZRANGE", account_keys(account)["streams"], 0, -1)])
    ids = [stream_id.decode() for stream_id in counted]
    await asyncio.gather(*(settle_ended(client, scripts, each) for each in await read_owed(client, ids)))


async def read_owed(client: Client, stream_ids: Sequence[str]) -> list[Settlement]:
    """Return the endings of streams that the desk has not settled. Raises :class:`BrokerUnavailable`."""
    commands: list[Command] = [("HMGET", state_key(stream_id), *_ENDING) for stream_id in stream_ids]
    found = []
    for stream_id, fields in zip(stream_ids, await run_commands(client, commands), strict=True):
        status, reason, owed, ended, account, digest, undelivered, unarchived, ledger, key_id, budgets = fields
        if owed is not None:
            ending = Owed.of(status, reason, owed, ended)
            settlement = Settlement(
                stream_id,
                _text(account),
                Kind.ENDED,
                ending,
                _text(digest),
                has_webhook=undelivered is not None,
                has_archive=unarchived is not None,
                ledger=decode_ledger(ledger, _text(key_id)),
                budgets=_text(budgets),
            )
            found.append(settlement)
    return found


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
