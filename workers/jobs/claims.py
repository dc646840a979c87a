"""Claims in two steps: a stream's place at the desk, and then its state (docs/adr/0020)."""

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from shared.broker.client import Client, run_commands, run_script, run_scripts
from shared.broker.declarations import Call
from shared.broker.desk_replies import OtherLanes, Parked, Taken
from shared.broker.desk_requests import Kind, Settlement
from shared.broker.keys import of_key
from shared.broker.replies import Claimed, Refused
from shared.broker.scripts import StreamScripts
from shared.broker.settlement import settle
from shared.errors import BrokerUnavailable
from workers.writing.writer import StreamWriter

logger = logging.getLogger(__name__)


async def claim(client: Client, scripts: StreamScripts, stream_id: str, token: str) -> Claimed | None:
    """Claim a stream, with a slot of a provider; its lanes are the field ``lane``. Return None if it is held, parked,
    ended or gone. Raises :class:`BrokerUnavailable`."""
    if scripts.target_limits:
        taken = await take(client, scripts, stream_id, token)
        if isinstance(taken, Parked) or taken is Refused.HELD:
            logger.debug("stream not taken", extra={"stream_id": stream_id, "reason": type(taken).__name__})
            if isinstance(taken, Parked) and taken.is_new:
                await run_script(client, scripts.note_parked(stream_id, taken.provider))
            return None
        claimed = await run_script(client, scripts.claim(stream_id, token))
    else:  # nothing can refuse it at the desk, so both steps share an exchange
        steps: list[Call[Any]] = [scripts.take(stream_id, token), scripts.claim(stream_id, token)]
        replies: list[Any] = await run_scripts(client, steps)
        taken, claimed = replies
        if isinstance(claimed, BrokerUnavailable):
            raise claimed
        if isinstance(taken, OtherLanes):
            taken = await take(client, scripts, stream_id, token, taken.lanes)
    lanes = taken.lanes if isinstance(taken, Taken) else ""
    if isinstance(claimed, Refused):
        logger.debug("stream not claimed", extra={"stream_id": stream_id, "reason": claimed})
        if claimed is Refused.MISSING:  # it was never created, or is gone; the sweep does the rest
            await _forget(client, scripts, stream_id, lanes)
        else:
            await _leave(client, scripts, stream_id, token, lanes)
        return None
    return replace(claimed, fields={**claimed.fields, "lane": lanes.encode()}) if lanes else claimed


async def hand_over(client: Client, scripts: StreamScripts, writer: StreamWriter) -> None:
    """Free the place of a stream that was released, and let the next worker take it at once."""
    with suppress(BrokerUnavailable):  # then the next sweep queues it
        await _leave(client, scripts, writer.holder.stream_id, writer.holder.token, writer.place.lanes, requeue=True)


async def take(
    client: Client, scripts: StreamScripts, stream_id: str, token: str, held: str = ""
) -> Taken | Parked | OtherLanes | Refused:
    taken = await run_script(client, scripts.take(stream_id, token, held))
    if isinstance(taken, OtherLanes):  # those of a worker before
        return await run_script(client, scripts.take(stream_id, token, taken.lanes))
    return taken


async def _forget(client: Client, scripts: StreamScripts, stream_id: str, held: str) -> None:
    (account,) = await run_commands(client, [("HGET", of_key(stream_id), "account")])
    if account is not None:
        await settle(client, scripts, Settlement(stream_id, account.decode(), Kind.EXPIRED), held)


async def _leave(
    client: Client, scripts: StreamScripts, stream_id: str, token: str, held: str, *, requeue: bool = False
) -> None:
    left = await run_script(client, scripts.desk.leave(stream_id, token, held, requeue=requeue))
    if isinstance(left, OtherLanes):  # the reply to an earlier call was lost
        await run_script(client, scripts.desk.leave(stream_id, token, left.lanes, requeue=requeue))
