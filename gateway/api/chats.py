"""Routes of the caller's chats: list them, read the turns of one, delete one."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from gateway.api.error_catalog import CALLER, error_responses
from gateway.api.response_models import ChatList, ChatTurns
from gateway.auth.principal import ANONYMOUS
from gateway.chats.listed_turns import list_turns
from gateway.state import Caller, Gateway
from shared.broker.chat_index import list_chats, list_members
from shared.broker.chats import ChatName, find_chat, forget_streams
from shared.broker.removal import delete_stream
from shared.broker.status import time_of
from shared.broker.stream_index import parse_page
from shared.errors import ChatGone, ChatNotFound, InvalidRequest
from shared.rate_limits import account_of
from shared.scopes import Scope

router = APIRouter()

ChatId = Annotated[str, Path(min_length=1, max_length=256)]
Page = Annotated[str | None, Query(max_length=64, json_schema_extra={"pattern": "^[0-9]{1,15}-"})]
#: Streams of a chat that are deleted at the same time.
_AT_ONCE = 100


@router.get("/chats", response_model=ChatList, responses=error_responses(*CALLER, "invalid_request"))
async def list_own_chats(
    gateway: Gateway, caller: Caller, limit: Annotated[int, Query(ge=1, le=100)] = 20, page: Page = None
) -> dict[str, Any]:
    """List the caller's chats, the last changed first; pass ``next_page`` as ``page``."""
    caller.need(Scope.READ)
    listed = await list_chats(
        gateway.client, gateway.scripts.sealing, account_of(caller.id), most=limit, page=_parsed(page)
    )
    return {"chats": listed.chats, "next_page": listed.next_page}


@router.get(
    "/chats/{chat_id:path}",
    response_model=ChatTurns,
    responses=error_responses(
        *(*CALLER, "chat_not_found", "chat_gone", "stream_recovering", "content_unreadable"),
        *("invalid_request", "overloaded"),
    ),
)
async def read_chat(
    gateway: Gateway,
    caller: Caller,
    chat_id: ChatId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Page = None,
) -> dict[str, Any]:
    """Return the turns of a chat, the oldest first; pass ``next_page`` as ``page``. Large turns make a page
    shorter."""
    caller.need(Scope.READ)
    after = _parsed(page)
    name = ChatName(account_of(caller.id), chat_id)
    gateway.body_memory.begin(None if caller is ANONYMOUS else caller.id)
    chat = await find_chat(gateway.client, name)
    if chat is None:
        raise ChatNotFound
    members = await list_members(gateway.client, name, most=limit + 1, after=after)
    listed = await list_turns(gateway, caller, members[:limit], has_more=len(members) > limit)
    if after is None and not listed.turns and listed.next_page is None:
        raise ChatGone
    return {
        "chat_id": chat_id,
        "title": listed.title,
        "created_at": time_of(chat.created),
        "updated_at": time_of(chat.updated),
        "turns": listed.turns,
        "next_page": listed.next_page,
    }


@router.delete("/chats/{chat_id:path}", status_code=204, responses=error_responses(*CALLER, "chat_not_found"))
async def delete_chat(gateway: Gateway, caller: Caller, chat_id: ChatId) -> None:
    """Cancel the running streams of a chat, and delete the content of all of them."""
    caller.need(Scope.CANCEL)
    name = ChatName(account_of(caller.id), chat_id)
    if await find_chat(gateway.client, name) is None:
        raise ChatNotFound
    is_forgotten = False
    while not is_forgotten:
        members = await list_members(gateway.client, name, most=_AT_ONCE, after=None)
        stream_ids = [stream_id for _, stream_id in members]
        await asyncio.gather(*(delete_stream(gateway.client, gateway.scripts, each) for each in stream_ids))
        is_forgotten = await forget_streams(gateway.client, name, stream_ids)


def _parsed(page: str | None) -> tuple[int, str] | None:
    after = None if page is None else parse_page(page)
    if page is not None and after is None:
        raise InvalidRequest("page: invalid; use `next_page` of the previous response")
    return after
