"""Index of each principal's chats: ``hr:chats:<account>``, a sorted set of digests by their last change.

A chat's id and title are in the states of its streams, so that they expire with the content: chats whose streams are
gone are skipped. Chats beyond the newest 10,000 (chats.py) go on, but are not listed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.broker.chat_keys import chat_digest, chat_keys, chats_key
from shared.broker.chats import Chat, ChatName, find_commands, parse_chat
from shared.broker.client import Client, run_commands
from shared.broker.keys import state_key
from shared.broker.pipeline_connection import Command
from shared.broker.sealing import Sealing
from shared.broker.status import time_of

#: Digests read beyond a page: some have the millisecond of the page's end, and some chats are gone.
_SPARE: Final = 64
_FIELDS: Final = ("chat", "title", "status", "provider", "model")
_NEVER: Final = 2**53
Page = tuple[int, str]


@dataclass(frozen=True, slots=True)
class ListedChats:
    """One page of chats. ``next_page`` is its end's position; None if it is the last page. ``unreadable``: number of
    chats before that position that are left out, since no key opens their ids."""

    chats: list[dict[str, Any]]
    next_page: str | None
    unreadable: int = 0


async def list_chats(client: Client, sealing: Sealing, account: str, *, most: int, page: Page | None) -> ListedChats:
    """List an account's chats, the last changed first, from after ``page``: (time, digest) of the last one seen.
    Raises :class:`BrokerUnavailable`."""
    found = await _digests(client, account, most + _SPARE, page)
    chats, unreadable = list[dict[str, Any]](), 0
    for (changed, digest), summary in zip(found, await _summaries(client, sealing, account, found), strict=True):
        if summary is not None and summary["chat_id"] is None:
            unreadable += 1
        elif summary is not None:
            chats.append(summary)
        if len(chats) == most:
            return ListedChats(chats, f"{changed}-{digest}", unreadable)
    next_page = f"{found[-1][0]}-{found[-1][1]}" if len(found) >= most else None
    return ListedChats(chats, next_page, unreadable)


async def list_members(client: Client, name: ChatName, *, most: int, after: Page | None) -> list[Page]:
    """List streams of a chat as (time, id), the oldest first, from after ``after``. Raises
    :class:`BrokerUnavailable`."""
    bottom = "-inf" if after is None else after[0]
    limits = ("BYSCORE", "LIMIT", 0, most + 1, "WITHSCORES")
    (flat,) = await run_commands(client, [("ZRANGE", name.keys[1], bottom, "+inf", *limits)])
    found = [(int(score), member.decode()) for member, score in zip(flat[::2], flat[1::2], strict=True)]
    return [entry for entry in found if after is None or entry > after][:most]


async def first_member(client: Client, name: ChatName) -> int:
    """Return when the oldest listed stream joined a chat, ms; a time that never comes if there is none. Raises
    :class:`BrokerUnavailable`."""
    (flat,) = await run_commands(client, [("ZRANGE", name.keys[1], 0, 0, "WITHSCORES")])
    return int(flat[1]) if flat else _NEVER


async def are_members(client: Client, name: ChatName, stream_ids: Sequence[str]) -> list[bool]:
    """Return for each stream whether :func:`list_members` lists it. Raises :class:`BrokerUnavailable`."""
    if not stream_ids:
        return []
    (scores,) = await run_commands(client, [("ZMSCORE", name.keys[1], *stream_ids)])
    return [score is not None for score in scores]


async def are_listed(client: Client, sealing: Sealing, account: str, chat_ids: Sequence[str]) -> list[bool]:
    """Return for each chat whether :func:`list_chats` lists it. Raises :class:`BrokerUnavailable`."""
    summaries = await _summaries(client, sealing, account, [(0, chat_digest(chat_id)) for chat_id in chat_ids])
    return [summary is not None and summary["chat_id"] is not None for summary in summaries]


async def _digests(client: Client, account: str, most: int, page: Page | None) -> list[Page]:
    top = "+inf" if page is None else page[0]
    limits = ("BYSCORE", "REV", "LIMIT", 0, most, "WITHSCORES")
    (flat,) = await run_commands(client, [("ZRANGE", chats_key(account), top, "-inf", *limits)])
    found = [(int(score), name.decode()) for name, score in zip(flat[::2], flat[1::2], strict=True)]
    return [entry for entry in found if page is None or entry < page]


async def _summaries(
    client: Client, sealing: Sealing, account: str, found: Sequence[Page]
) -> list[dict[str, Any] | None]:
    """Return the summary of each chat: None for those whose streams are gone, and without an id for those that cannot
    be decrypted."""
    if not found:
        return []
    commands: list[Command] = []
    for _, digest in found:
        latest, streams = chat_keys(account, digest)
        commands += [*find_commands(latest, streams), ("ZCARD", streams)]
    replies = await run_commands(client, commands)
    chats = [parse_chat(*replies[at : at + 2]) for at in range(0, len(replies), 3)]
    ids = [stream_id for chat in chats if chat is not None for stream_id in chat.newest]
    states = await run_commands(client, [("HMGET", state_key(each), *_FIELDS) for each in ids]) if ids else []
    by_id = dict(zip(ids, states, strict=True))
    return [
        _summary(sealing, chat, count, by_id) if chat is not None else None
        for chat, count in zip(chats, replies[2::3], strict=True)
    ]


def _summary(
    sealing: Sealing, chat: Chat, streams: int, states: dict[str, list[bytes | None]]
) -> dict[str, Any] | None:
    """Return the summary of a chat by its latest stream: the one before it, while that is being created."""
    stream_id = next((each for each in chat.newest if states[each][0] is not None), None)
    if stream_id is None or (stream_id != chat.stream_id and not chat.is_pending):
        return None
    text = sealing.readable_texts(stream_id, _FIELDS, states[stream_id])
    return {
        "chat_id": text["chat"],
        "title": text["title"] or "",
        "streams": streams,
        "last_stream_id": stream_id,
        "status": text["status"],
        "provider": text["provider"],
        "model": text["model"],
        "created_at": time_of(chat.created),
        "updated_at": time_of(chat.updated),
    }
