"""The latest stream of each chat, for clients that have a chat's id but no stream's.

``hr:chat:<account>:<digest of the chat's id>`` is a hash and lives as long as a stream. The client chooses the
message's id freely, so it is sealed as the stream's content. Every function here raises :class:`BrokerUnavailable`.
"""

from dataclasses import dataclass

from shared.broker.client import Client, run_commands
from shared.broker.keys import chat_key
from shared.broker.sealing import Sealing


@dataclass(frozen=True, slots=True)
class Chat:
    """Latest answer of a chat. ``message_id``: the client's id of it. ``received``: a client has received all of
    it."""

    stream_id: str
    message_id: str
    received: bool = False


async def note_chat(
    client: Client, sealing: Sealing, account: str, chat_id: str, chat: Chat, *, life_s: float
) -> None:
    """Store ``chat`` as the latest stream of a chat."""
    key = chat_key(account, chat_id)
    fields = ("stream", chat.stream_id, "message", sealing.seal(chat.stream_id, chat.message_id.encode()))
    await run_commands(client, [("HSET", key, *fields), ("PEXPIRE", key, round(life_s * 1000))])


async def find_chat(client: Client, sealing: Sealing, account: str, chat_id: str) -> Chat | None:
    """Return the latest stream of a chat, if there is one. Also raises :class:`ContentUnreadable`."""
    (found,) = await run_commands(client, [("HMGET", chat_key(account, chat_id), "stream", "message", "heard")])
    stream_id, message_id, received = found
    if stream_id is None or message_id is None:
        return None
    opened = sealing.open(stream_id.decode(), message_id)
    return Chat(stream_id.decode(), opened.decode(), received == stream_id)


async def note_received(client: Client, account: str, chat_id: str, stream_id: str, *, life_s: float) -> None:
    """Note that a client has received this stream; harmless if the chat has another stream by now."""
    key = chat_key(account, chat_id)
    await run_commands(client, [("HSET", key, "heard", stream_id), ("PEXPIRE", key, round(life_s * 1000))])
