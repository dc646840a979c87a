"""The turns of a chat, as ``GET /chats/{chat_id}`` lists them."""

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from gateway.archive.reads import archived_view, read_stored_fields, stored_request_bytes
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_logs_in_redis
from gateway.auth.principal import Principal
from gateway.chats.earlier_turns import request_of
from gateway.intake.body_memory import releases_body, run_beside_loop, take_memory
from gateway.state import GatewayState
from shared.broker.answer import answer_view
from shared.broker.log import LogsTooLarge, StoredLog, read_stored_log
from shared.broker.status import read_state
from shared.protocol import events
from shared.protocol.lifecycle import TERMINAL
from shared.protocol.transcript import fold
from shared.schemas.stored_request import stored_messages

#: Bytes of the logs on one page, and of the requests. A single turn may have more.
_MOST_BYTES: Final = 4 * 1024 * 1024
_FIELDS: Final = ("status", "title", "follow_up", "earlier", "chat_history", "request", "request_bytes")
_LARGEST_LOG: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ListedTurns:
    """One page of turns. ``next_page`` is its end's position; None if it is the last page."""

    turns: list[dict[str, Any]]
    title: str
    next_page: str | None


@releases_body
async def list_turns(
    gateway: GatewayState, caller: Principal, members: Sequence[tuple[int, str]], *, has_more: bool
) -> ListedTurns:
    """Return the turns of streams, given as (time, id), without those that are gone. If they are too large together,
    the page ends before. Raises :class:`StreamRecovering`, :class:`ContentUnreadable`, :class:`Overloaded` and
    :class:`BrokerUnavailable`."""
    count = await _take_requests(gateway, [stream_id for _, stream_id in members])
    logs, count = await _logs(gateway, caller, [stream_id for _, stream_id in members[:count]])
    revocation = await gateway.link_revocations.last_now()
    # One after another: only one request is parsed at a time, and nothing goes on after an error.
    turns = [await _turn(gateway, caller, each, logs.get(each), revocation) for _, each in members[:count]]
    found = [turn for turn in turns if turn is not None]
    is_last = not members or (count == len(members) and not has_more)
    return ListedTurns(
        turns=[turn for turn, _ in found],
        title=next((title for _, title in reversed(found) if title), ""),
        next_page=None if is_last else "{}-{}".format(*members[count - 1]),
    )


async def _take_requests(gateway: GatewayState, stream_ids: Sequence[str]) -> int:
    """Take memory for the requests of the first streams. Return how many streams these are: as many as fit
    together."""
    sums = [*accumulate(await stored_request_bytes(gateway, stream_ids))]
    count = max(1, bisect_right(sums, _MOST_BYTES))
    if sums:
        await take_memory(sums[:count][-1])
    return count


async def _logs(
    gateway: GatewayState, caller: Principal, stream_ids: Sequence[str]
) -> tuple[dict[str, StoredLog], int]:
    """Return the logs of the first streams, and how many streams these are: as many as fit together."""
    count = len(stream_ids)
    while count > 1:
        with suppress(LogsTooLarge):
            logs = await read_logs_in_redis(gateway, Grant.of(caller), stream_ids[:count], most_bytes=_MOST_BYTES)
            return logs, count
        count //= 2
    return await read_logs_in_redis(gateway, Grant.of(caller), stream_ids[:1], most_bytes=_LARGEST_LOG), count


async def _turn(
    gateway: GatewayState, caller: Principal, stream_id: str, log: StoredLog | None, revocation: int
) -> tuple[dict[str, Any], str] | None:
    """Return a turn and the title of its chat; None if its stream is gone. ``log``: None if Redis has no more of it.
    ``revocation``: for its ticket."""
    fields = await read_stored_fields(gateway, stream_id, _FIELDS)
    answer = await _answer(gateway, caller, stream_id, log)
    if answer is None:
        return None
    ticket, _ = gateway.tickets.for_others(stream_id, caller, revocation, life_s=None, may_cancel=False)
    turn = {
        "stream_id": stream_id,
        "stream_url": f"/chat/stream/{stream_id}?ticket={ticket}",
        "status_url": f"/chat/{stream_id}",
        "status": answer["status"],
        "model": answer["model"],
        "history": fields["chat_history"] or None,
        "messages": await _new_messages(gateway, stream_id, fields),
        "answer": answer,
    }
    return turn, fields["title"] or ""


async def _answer(
    gateway: GatewayState, caller: Principal, stream_id: str, log: StoredLog | None
) -> dict[str, Any] | None:
    """Return the body of ``GET /chat/{stream_id}``, without the queue position."""
    state = None if log is None else await read_state(gateway.client, gateway.scripts.sealing, stream_id)
    if log is None or state is None:
        archived = (
            None if gateway.archive is None else await gateway.archive.find(stream_id, caller.id, with_request=False)
        )
        return None if archived is None else {**archived_view(archived)}
    if state.status in TERMINAL and not (log.events and events.is_done(log.events[-1])):  # it ended meanwhile
        log = await read_stored_log(gateway.client, gateway.scripts, stream_id)
    transcript = await asyncio.to_thread(lambda: fold(map(events.decode, log.events)))
    last_event_id = str(log.cursor) if log.events else None
    return {**answer_view(stream_id, state, transcript), "position": None, "last_event_id": last_event_id}


async def _new_messages(
    gateway: GatewayState, stream_id: str, fields: Mapping[str, str | None]
) -> list[dict[str, Any]] | None:
    """Return the new messages of a request; None if the request is not kept."""
    if fields["follow_up"] is None:
        return None
    request = await request_of(gateway, stream_id, fields)
    if request is None:
        return None
    return (await run_beside_loop(stored_messages, request))[int(fields["earlier"] or 0) :]
