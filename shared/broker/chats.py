"""Chats: the streams of a conversation under the client's id of it, and which of them is the latest.

``hr:chat:{<account>:<digest of the id>}:latest`` is a hash, and ``…:streams`` has the ids of the chat's streams in
their order. A new stream joins its chat before it is created, and is confirmed or removed after that. So of two
requests that continue the same answer, exactly one is accepted. A stream that is neither confirmed nor removed,
because its gateway was lost, is replaced by the next one after :data:`PENDING_MS`.

The keys outlive the streams, as tombstones do: a client whose earlier turns are gone gets an error instead of an
answer without them. They hold no content: the chat's id and title are in the states of its streams. Every function
here raises :class:`BrokerUnavailable`.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from shared.broker.chat_keys import chat_digest, chat_keys, chats_key
from shared.broker.client import Client, run_commands, run_script
from shared.broker.declarations import FORGET_CHAT, JOIN_CHAT, JOINED_CHAT
from shared.broker.pipeline_connection import Command
from shared.broker.scripts import StreamScripts

#: Time for the creation of a stream that has joined its chat.
PENDING_MS: Final = 15_000
#: Streams of a chat that are listed, and chats of an account.
_MOST_MEMBERS: Final = 10_000
_MOST_CHATS: Final = 10_000
_FIELDS: Final = ("stream", "message", "received", "pending", "created", "updated")
#: A stream may join whatever the latest one is.
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class ChatName:
    """A chat as Redis names it."""

    account: str
    chat_id: str

    @property
    def keys(self) -> list[str]:
        return chat_keys(self.account, chat_digest(self.chat_id))


@dataclass(frozen=True, slots=True)
class Chat:
    """Streams of a chat. ``stream_id``: the latest. ``before``: the one before it, if there is one. ``message``: the
    client's id of the latest answer, sealed, or empty. ``received``: a client has received all of it. ``is_pending``:
    it may not be created yet. ``created`` and ``updated``: times of the chat, ms."""

    stream_id: str
    before: str | None
    message: bytes
    received: bool
    is_pending: bool
    created: str
    updated: str

    @property
    def newest(self) -> list[str]:
        """The latest stream, and the one before it."""
        return [self.stream_id, *([self.before] if self.before else [])]


@dataclass(frozen=True, slots=True)
class Pending:
    """Another stream has joined the chat and is being created, for at most ``ms``."""

    ms: int


@dataclass(frozen=True, slots=True)
class Joined:
    """The stream is the latest of the chat."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The chat has another latest stream by now."""


async def find_chat(client: Client, name: ChatName) -> Chat | None:
    """Return a chat, if it has a stream."""
    return parse_chat(*await run_commands(client, find_commands(*name.keys)))


def find_commands(latest: str, streams: str) -> list[Command]:
    """Return the commands that read a chat with these keys."""
    return [("HMGET", latest, *_FIELDS), ("ZRANGE", streams, -2, -1)]


def parse_chat(fields: list[bytes | None], newest: list[bytes]) -> Chat | None:
    """Parse the replies to :func:`find_commands`."""
    stream_id, message, received, pending, created, updated = fields
    if stream_id is None:
        return None
    before = next((each.decode() for each in newest if each != stream_id), None)
    return Chat(
        stream_id.decode(),
        before,
        message or b"",
        received == stream_id,
        pending == stream_id,
        (created or b"").decode(),
        (updated or b"").decode(),
    )


async def join_chat(
    client: Client, scripts: StreamScripts, name: ChatName, stream_id: str, continues: str | None
) -> Joined | Moved | Pending:
    """Make a stream, which is created next, the latest of its chat. ``continues``: the latest stream before it."""
    return await _join(client, scripts, name, stream_id, expected=continues or "", pending_ms=PENDING_MS)


async def take_chat(client: Client, scripts: StreamScripts, name: ChatName, stream_id: str) -> None:
    """Make a stream, which is created next, the latest of its chat, whatever was the latest."""
    await _join(client, scripts, name, stream_id, expected=_ANY, pending_ms=PENDING_MS)


async def note_latest(
    client: Client, scripts: StreamScripts, name: ChatName, stream_id: str, message_id: str
) -> None:
    """Make a stream that was created the latest of its chat. ``message_id``: the client's id of its answer."""
    message = scripts.sealing.seal(stream_id, message_id.encode())
    await _join(client, scripts, name, stream_id, expected=_ANY, message=message, pending_ms=0)


async def confirm_member(client: Client, name: ChatName, stream_id: str) -> bool:
    """Confirm a stream that was created. Return False if it is not of the chat any more."""
    return await run_script(client, JOINED_CHAT.call(name.keys, bool, stream_id=stream_id, is_created=1))


async def remove_member(client: Client, name: ChatName, stream_id: str) -> None:
    """Remove a stream that was not created from its chat."""
    await run_script(client, JOINED_CHAT.call(name.keys, bool, stream_id=stream_id, is_created=0))


async def note_received(client: Client, scripts: StreamScripts, name: ChatName, stream_id: str) -> None:
    """Note that a client has received this stream; harmless if the chat has another stream by now."""
    latest, _ = name.keys
    await run_commands(client, [("HSET", latest, "received", stream_id), ("PEXPIRE", latest, scripts.chat_ms)])


async def forget_streams(client: Client, scripts: StreamScripts, name: ChatName, stream_ids: list[str]) -> bool:
    """Forget streams that were deleted. Return False if the chat has others."""
    key, digest = chats_key(name.account), chat_digest(name.chat_id)
    # The list first: a stream that joins after the chat was forgotten lists the chat again.
    changed, _ = await run_commands(client, [("ZSCORE", key, digest), ("ZREM", key, digest)])
    is_forgotten = await run_script(client, FORGET_CHAT.call(name.keys, bool, stream_ids=" ".join(stream_ids)))
    if not is_forgotten and changed is not None:
        await run_commands(client, [("ZADD", key, "NX", changed, digest), ("PEXPIRE", key, scripts.chat_ms)])
    return is_forgotten


async def _join(
    client: Client,
    scripts: StreamScripts,
    name: ChatName,
    stream_id: str,
    *,
    expected: str,
    pending_ms: int,
    message: bytes = b"",
) -> Joined | Moved | Pending:
    """Run the script, and put the chat in front of the list of its account."""
    call = JOIN_CHAT.call(
        name.keys,
        _parse,
        stream_id=stream_id,
        expected=expected,
        message=message,
        pending_ms=pending_ms,
        most_members=_MOST_MEMBERS,
        life_ms=scripts.chat_ms,
    )
    key, now = chats_key(name.account), time.time_ns() // 1_000_000
    listing: list[Command] = [
        ("ZADD", key, now, chat_digest(name.chat_id)),
        ("ZREMRANGEBYRANK", key, 0, -_MOST_CHATS - 1),
        ("PEXPIRE", key, scripts.chat_ms),
    ]
    # A chat that is listed and not joined is skipped, or was there before.
    joined, _ = await asyncio.gather(run_script(client, call), run_commands(client, listing))
    reply: Joined | Moved | Pending = joined
    return reply


def _parse(raw: Any) -> Joined | Moved | Pending:
    match raw:
        case [b"JOINED"]:
            return Joined()
        case [b"PENDING", int(ms)]:
            return Pending(ms)
    return Moved()
