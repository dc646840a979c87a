"""Which stream is the latest of a chat, for clients that know a chat's id and no stream's:
``hr:chat:<account>:<digest of the chat's id>``, a hash, for as long as a stream is kept.
"""

from dataclasses import dataclass

from shared.broker.client import Client, run_commands
from shared.broker.keys import chat_key


@dataclass(frozen=True, slots=True)
class Chat:
    """``message_id``: under which its client knows the answer. ``heard``: a client has had all of it."""

    stream_id: str
    message_id: str
    heard: bool = False


async def note_chat(client: Client, account: str, chat_id: str, chat: Chat, *, life_s: float) -> None:
    """Raises :class:`BrokerUnavailable`, as all here do."""
    key = chat_key(account, chat_id)
    fields = ("stream", chat.stream_id, "message", chat.message_id)
    await run_commands(client, [("HSET", key, *fields), ("PEXPIRE", key, round(life_s * 1000))])


async def find_chat(client: Client, account: str, chat_id: str) -> Chat | None:
    (found,) = await run_commands(client, [("HMGET", chat_key(account, chat_id), "stream", "message", "heard")])
    stream_id, message_id, heard = found
    if stream_id is None or message_id is None:
        return None
    return Chat(stream_id.decode(), message_id.decode(), heard == stream_id)


async def note_heard(client: Client, account: str, chat_id: str, stream_id: str, *, life_s: float) -> None:
    """Says which stream was heard, so that it does not matter whether the chat has another by now."""
    key = chat_key(account, chat_id)
    await run_commands(client, [("HSET", key, "heard", stream_id), ("PEXPIRE", key, round(life_s * 1000))])
