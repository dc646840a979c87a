"""Chats with those streams that only the archive has. Without an archive, only Redis is read."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gateway.archive.deletion import delete_own
from gateway.auth.principal import Principal
from gateway.state import GatewayState
from shared.archive.records import ArchivedChat, Filters
from shared.broker.chat_index import (
    ListedChats,
    Page,
    are_listed,
    are_members,
    first_member,
    list_chats,
    list_members,
)
from shared.broker.chats import ChatName, forget_streams
from shared.broker.status import time_of
from shared.errors import StreamGone, StreamNotFound
from shared.protocol.ids import is_stream_id
from shared.rate_limits import account_of

if TYPE_CHECKING:
    from shared.archive.archive import Archive

#: Position before all archived chats.
_NEWEST: Final = (10**15 - 1, "f" * 34)
#: Streams of a chat that are deleted at the same time.
_AT_ONCE: Final = 50


async def find_archived_latest(gateway: GatewayState, principal: str, chat_id: str) -> str | None:
    """Return the newest archived stream of a chat. Raises :class:`ArchiveUnavailable`: without an answer, a chat that
    exists would go on without its history."""
    if gateway.archive is None:
        return None
    found = await gateway.archive.list_streams(principal, most=1, filters=Filters(chat_id=chat_id))
    return found[0].stream_id if found else None


async def list_all_chats(gateway: GatewayState, principal: str, *, most: int, page: Page | None) -> ListedChats:
    """Return a principal's chats, the last changed first: those that Redis knows, and then older ones. Raises
    :class:`BrokerUnavailable` and :class:`ArchiveUnavailable`."""
    account, archive = account_of(principal), gateway.archive
    is_archived = page is not None and is_stream_id(page[1])
    listed = ListedChats([], None)
    if not is_archived:
        listed = await list_chats(gateway.client, gateway.scripts.sealing, account, most=most, page=page)
        if listed.next_page is not None or archive is None:
            return listed
    if archive is None:
        return listed
    at = page if page is not None and is_archived else _NEWEST
    found = await archive.list_chats(principal, most=most + 1, before=at)
    ids = [chat.last.chat_id or "" for chat in found]
    in_redis = await are_listed(gateway.client, gateway.scripts.sealing, account, ids)
    chats, unreadable = listed.chats, listed.unreadable
    for chat, is_listed in zip(found[:most], in_redis, strict=False):
        if len(chats) == most:
            break
        at = chat.last.created, chat.last.stream_id
        if chat.last.chat_id is None:
            unreadable += 1
        elif not is_listed:
            chats.append(_summary(chat))
    is_last = not found or at == (found[-1].last.created, found[-1].last.stream_id)
    return ListedChats(chats, None if is_last else "{}-{}".format(*at), unreadable)


async def list_all_members(
    gateway: GatewayState, principal: str, name: ChatName, *, most: int, after: Page | None
) -> list[Page]:
    """Return streams of a chat as (time, id), the oldest first, from after ``after``. Those that only the archive has
    come first: Redis forgets a chat as a whole. Raises :class:`BrokerUnavailable` and :class:`ArchiveUnavailable`."""
    members: list[Page] = []
    if gateway.archive is not None:
        members = await _only_archived(gateway, gateway.archive, principal, name, most=most, after=after)
    if len(members) < most:
        members += await list_members(gateway.client, name, most=most - len(members), after=after)
    return members


async def _only_archived(
    gateway: GatewayState, archive: "Archive", principal: str, name: ChatName, *, most: int, after: Page | None
) -> list[Page]:
    """Return streams that were created before the first one in Redis joined the chat. Those that joined it after
    their creation are left out: Redis lists them."""
    first, at, members = await first_member(gateway.client, name), after, list[Page]()
    while len(members) < most:
        found = await archive.list_chat_members(principal, name.chat_id, after=at, before_ms=first, most=most)
        in_redis = await are_members(gateway.client, name, [stream_id for _, stream_id in found])
        members += [each for each, is_member in zip(found, in_redis, strict=True) if not is_member]
        if len(found) < most:
            break
        at = found[-1]
    return members[:most]


async def delete_all(gateway: GatewayState, caller: Principal, name: ChatName) -> bool:
    """Delete all streams of a chat. Return False if it had none. Raises :class:`BrokerUnavailable` and
    :class:`ArchiveUnavailable`; the caller then repeats it."""
    had_some = is_forgotten = False
    while not is_forgotten:
        members = [each for _, each in await list_members(gateway.client, name, most=_AT_ONCE, after=None)]
        await _delete(gateway, caller, members)
        had_some = had_some or bool(members)
        is_forgotten = await forget_streams(gateway.client, gateway.scripts, name, members)
    archive = gateway.archive
    while archive is not None:
        streams = await archive.list_streams(caller.id, most=_AT_ONCE, filters=Filters(chat_id=name.chat_id))
        if not streams:
            break
        had_some = True
        await _delete(gateway, caller, [each.stream_id for each in streams])
        # Those that Redis has as deleted already, but that were written to the archive after that.
        for left in await archive.list_some(caller.id, [each.stream_id for each in streams]):
            await archive.delete(left.stream_id)
    return had_some


async def _delete(gateway: GatewayState, caller: Principal, stream_ids: list[str]) -> None:
    async def delete(stream_id: str) -> None:
        with suppress(StreamGone, StreamNotFound):
            await delete_own(gateway, caller, stream_id)

    await asyncio.gather(*map(delete, stream_ids))


def _summary(chat: ArchivedChat) -> dict[str, Any]:
    last = chat.last
    return {
        "chat_id": last.chat_id,
        "title": last.title,
        "streams": chat.streams,
        "last_stream_id": last.stream_id,
        "status": last.status,
        "provider": last.provider,
        "model": last.model,
        "created_at": time_of(str(chat.created)),
        "updated_at": time_of(str(last.created)),
    }
