"""Membership of streams in chats: a stream joins its chat before it is created, so that no turn is lost or answered
twice."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.archive.reads import read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own_logs
from gateway.auth.principal import Principal
from gateway.chats.archived_chats import find_archived_latest
from gateway.chats.earlier_turns import (
    LOG_BYTES_PER_BYTE,
    MOST_LOG_BYTES,
    EarlierTurn,
    NotKept,
    StillRunning,
    read_turn,
)
from gateway.chats.history import Composed, History, composed, given, title_of
from gateway.intake.body_memory import run_beside_loop
from gateway.state import GatewayState
from shared.broker.chats import (
    Chat,
    ChatName,
    Joined,
    confirm_member,
    find_chat,
    join_chat,
    remove_member,
    take_chat,
)
from shared.broker.log import LogsTooLarge
from shared.broker.removal import undo_stream
from shared.broker.status import read_field
from shared.errors import (
    BrokerUnavailable,
    ChatBusy,
    ChatGone,
    ChatNotFound,
    HeadraceError,
    InvalidRequest,
    StreamGone,
)
from shared.rate_limits import account_of
from shared.schemas import ChatRequest
from shared.scopes import Scope


class ChatMoved(Exception):
    """Another request has joined the chat at the same moment. The caller tries again shortly."""


@dataclass(slots=True)
class ChatMember:
    """The stream of a request in its chat. ``request``: with all messages. ``fields``: of the stream's state.
    ``is_created``: set by the caller when the stream was created."""

    request: ChatRequest
    stream_id: str | None = None
    history: History | None = None
    fields: dict[str, str] = field(default_factory=dict)
    is_created: bool = False


@asynccontextmanager
async def joining_chat(
    gateway: GatewayState, caller: Principal, request: ChatRequest, stream_id: str
) -> AsyncIterator[ChatMember]:
    """Let ``stream_id``, which the caller creates within the context, join the chat of its request. Without a chat,
    the request is unchanged. Raises :class:`ChatMoved`, :class:`ChatBusy`, :class:`ChatGone`,
    :class:`ChatNotFound`, :class:`InvalidRequest` and :class:`BrokerUnavailable`."""
    if request.chat_id is None:
        yield ChatMember(request)
        return
    name = ChatName(account_of(caller.id), request.chat_id)
    member = await _join(gateway, caller, name, request, stream_id)
    try:
        yield member
    except BrokerUnavailable:
        raise  # the stream may exist: the next request of the chat finds out
    except HeadraceError as error:
        await remove_member(gateway.client, name, stream_id)
        if isinstance(error, StreamGone):  # the latest stream, while it is being dropped
            raise ChatGone from None
        raise
    if not member.is_created:
        await remove_member(gateway.client, name, stream_id)
    elif not await confirm_member(gateway.client, name, stream_id):
        await undo_stream(gateway.client, gateway.scripts, stream_id)
        raise ChatBusy


async def joined_history(gateway: GatewayState, caller: Principal, chat_id: str, stream_id: str) -> str | None:
    """Return what happened to the earlier turns for a stream that exists, and confirm it as one of its chat: its
    gateway may have been lost before."""
    await confirm_member(gateway.client, ChatName(account_of(caller.id), chat_id), stream_id)
    return await read_field(gateway.client, gateway.scripts.sealing, stream_id, "chat_history") or None


async def _join(
    gateway: GatewayState, caller: Principal, name: ChatName, request: ChatRequest, stream_id: str
) -> ChatMember:
    if request.history == "given":
        whole, sources = given(request), ""
        await take_chat(gateway.client, gateway.scripts, name, stream_id)
    else:
        caller.need(Scope.READ)
        chat = await find_chat(gateway.client, name)
        latest = None if chat is None else await _latest(gateway, name, chat)
        source = latest or await find_archived_latest(gateway, caller.id, name.chat_id)
        whole = await _composed(gateway, caller, request, source)
        sources = source if source is not None and whole.history == "added" else ""
        reply = await join_chat(gateway.client, gateway.scripts, name, stream_id, latest)
        if not isinstance(reply, Joined):
            raise ChatMoved
    fields = {
        "chat": name.chat_id,
        "title": title_of(whole.request),
        "follow_up": "0",
        "earlier": str(whole.earlier),
        "chat_history": whole.history or "",
    }
    return ChatMember(whole.request, stream_id, whole.history, fields | ({"sources": sources} if sources else {}))


async def _latest(gateway: GatewayState, name: ChatName, chat: Chat) -> str | None:
    """Return the latest stream of a chat that exists, or existed. One that is pending exists if its gateway was lost
    after the creation. Raises also :class:`ArchiveUnavailable`."""
    if not chat.is_pending:
        return chat.stream_id
    if (await read_stored_fields(gateway, chat.stream_id, ["status"]))["status"] is None:
        return chat.before
    if not await confirm_member(gateway.client, name, chat.stream_id):
        raise ChatMoved
    return chat.stream_id


async def _composed(gateway: GatewayState, caller: Principal, request: ChatRequest, latest: str | None) -> Composed:
    """Return the request with the messages of the earlier turns."""
    if latest is None:
        if request.history == "add":
            raise ChatNotFound
        return Composed(request)
    try:
        turn = await _turn(gateway, caller, latest)
    except StillRunning:
        raise await _busy(gateway, caller, latest) from None
    except NotKept:
        raise ChatGone from None
    whole = await run_beside_loop(composed, request, turn)
    await run_beside_loop(_check_size, whole, gateway.settings.max_conversation_bytes)
    return whole


async def _turn(gateway: GatewayState, caller: Principal, stream_id: str) -> EarlierTurn:
    """Read the latest turn of a chat, with the conversation before it."""
    most = min(gateway.settings.max_conversation_bytes * LOG_BYTES_PER_BYTE, MOST_LOG_BYTES)
    try:
        logs = await read_own_logs(gateway, Grant.of(caller), [stream_id], most_bytes=most)
    except LogsTooLarge:
        raise InvalidRequest("chat_id: the last answer is too large; send the messages with history: given") from None
    if stream_id not in logs:
        raise NotKept
    return await read_turn(gateway, stream_id, logs[stream_id].events)


async def _busy(gateway: GatewayState, caller: Principal, stream_id: str) -> ChatBusy:
    revocation = await gateway.link_revocations.last_now()
    ticket, _ = gateway.tickets.for_others(stream_id, caller, revocation, life_s=None, may_cancel=False)
    return ChatBusy(stream_id=stream_id, stream_url=f"/chat/stream/{stream_id}?ticket={ticket}")


def _check_size(whole: Composed, most_bytes: int) -> None:
    if whole.history != "added":
        return
    size = len(whole.request.model_dump_json(exclude_none=True).encode())
    if size > most_bytes:
        problem = f"has {size} bytes with the earlier turns of the chat; the limit is {most_bytes}"
        raise InvalidRequest(f"messages: {problem}; begin a new chat, or send a shorter history with history: given")
