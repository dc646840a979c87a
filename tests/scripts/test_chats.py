"""Streams that join a chat: one follows another, and no stream takes the place of one that was confirmed."""

import pytest

from shared.broker.chat_keys import chats_key
from shared.broker.chats import (
    ChatName,
    Joined,
    Moved,
    Pending,
    confirm_member,
    find_chat,
    forget_streams,
    join_chat,
    note_latest,
    remove_member,
    take_chat,
)
from shared.broker.client import Client
from shared.protocol.ids import new_stream_id
from tests.scripts.stream import SCRIPTS

NAME = ChatName("an-account", "a chat")


async def join(client: Client, continues: str | None) -> str:
    """Let a new stream join, and return its id."""
    stream_id = new_stream_id()
    assert isinstance(await join_chat(client, SCRIPTS, NAME, stream_id, continues), Joined)
    return stream_id


async def confirmed(client: Client, continues: str | None) -> str:
    stream_id = await join(client, continues)
    assert await confirm_member(client, NAME, stream_id)
    return stream_id


async def latest(client: Client) -> tuple[str, bool] | None:
    chat = await find_chat(client, NAME)
    return None if chat is None else (chat.stream_id, chat.is_pending)


async def test_a_stream_follows_the_one_that_it_was_made_from(client: Client) -> None:
    first = await confirmed(client, None)
    assert isinstance(await join_chat(client, SCRIPTS, NAME, new_stream_id(), None), Moved)
    second = await confirmed(client, first)
    assert isinstance(await join_chat(client, SCRIPTS, NAME, new_stream_id(), first), Moved)
    assert await latest(client) == (second, False)
    chat = await find_chat(client, NAME)
    assert chat is not None
    assert (chat.before, chat.created <= chat.updated) == (first, True)


@pytest.mark.parametrize("has_first", [True, False])
async def test_a_stream_that_was_refused_leaves_the_one_before(client: Client, has_first: bool) -> None:
    first = await confirmed(client, None) if has_first else None
    second = await join(client, first)
    pending = await join_chat(client, SCRIPTS, NAME, new_stream_id(), first)
    assert isinstance(pending, Pending)
    assert 0 < pending.ms <= 15_000
    assert await latest(client) == (second, True)
    await remove_member(client, NAME, second)
    assert await latest(client) == ((first, False) if first else None)
    await confirmed(client, first)


async def test_a_stream_that_was_never_created_is_replaced(client: Client) -> None:
    """And cannot be confirmed after that."""
    first = await confirmed(client, None)
    lost = await join(client, first)
    await client.hset(NAME.keys[0], "pending_until", "1")  # type: ignore[misc]
    third = await join(client, first)
    assert not await confirm_member(client, NAME, lost)
    assert await confirm_member(client, NAME, third)
    assert await latest(client) == (third, False)


async def test_a_given_history_joins_whatever_is_the_latest(client: Client) -> None:
    """A stream that was joined before it can still be confirmed, but is not the latest."""
    before = await join(client, None)
    given = new_stream_id()
    await take_chat(client, SCRIPTS, NAME, given)
    assert await confirm_member(client, NAME, before)
    assert await latest(client) == (given, True)
    await remove_member(client, NAME, given)
    assert await latest(client) == (before, False)
    await note_latest(client, SCRIPTS, NAME, given, "msg_1")
    chat = await find_chat(client, NAME)
    assert chat is not None
    assert (chat.stream_id, chat.message, chat.is_pending) == (given, b"msg_1", False)


async def test_a_chat_is_forgotten_with_its_last_stream(client: Client) -> None:
    first = await confirmed(client, None)
    second = await join(client, first)
    assert not await forget_streams(client, SCRIPTS, NAME, [first])
    assert await forget_streams(client, SCRIPTS, NAME, [first, second])
    assert await latest(client) is None
    assert not await confirm_member(client, NAME, second)  # so that its gateway deletes it
    assert await client.exists(*NAME.keys) == 0


async def test_a_refused_stream_gives_its_place_back_to_the_one_that_is_pending(client: Client) -> None:
    """Which may never have been created: then the next request takes its place."""
    first = await confirmed(client, None)
    lost, given = await join(client, first), new_stream_id()
    await take_chat(client, SCRIPTS, NAME, given)
    await remove_member(client, NAME, given)
    assert await latest(client) == (lost, True)
    third = await join(client, first)
    await take_chat(client, SCRIPTS, NAME, given)
    assert await confirm_member(client, NAME, third)
    await remove_member(client, NAME, given)
    assert await latest(client) == (third, False)


async def test_a_chat_that_another_stream_has_joined_stays_listed(client: Client) -> None:
    key = chats_key(NAME.account)
    first = await confirmed(client, None)
    second = await confirmed(client, first)
    listed = await client.zrange(key, 0, -1, withscores=True)
    assert not await forget_streams(client, SCRIPTS, NAME, [first])
    assert await client.zrange(key, 0, -1, withscores=True) == listed
    assert await client.pttl(key) > 0
    assert await forget_streams(client, SCRIPTS, NAME, [second])
    assert await client.exists(key) == 0
