"""Routes of the caller's chats: list them, read the turns of one, delete one."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query

from gateway.api.chat_models import ChatList, ChatTurns
from gateway.api.descriptions import CHATS
from gateway.api.error_catalog import CALLER, error_responses
from gateway.auth.principal import ANONYMOUS
from gateway.chats.archived_chats import delete_all, list_all_chats, list_all_members
from gateway.chats.listed_turns import list_turns
from gateway.state import Caller, Gateway
from shared.broker.chats import ChatName, find_chat
from shared.broker.status import time_of
from shared.broker.stream_index import parse_page
from shared.errors import ChatGone, ChatNotFound, InvalidRequest
from shared.rate_limits import account_of
from shared.scopes import Scope

router = APIRouter(tags=[CHATS])

_NOT_FOUND: Final = "chat_id: no such chat; check it and your credentials"
_GONE: Final = "chat_id: the messages of this chat are gone"

Page = Annotated[str | None, Query(max_length=64, json_schema_extra={"pattern": "^[0-9]{1,15}-"})]


@router.get(
    "/chats",
    operation_id="list_chats",
    summary="List chats",
    response_model=ChatList,
    responses=error_responses(*CALLER, "invalid_request", "archive_unavailable"),
)
async def list_own_chats(
    gateway: Gateway, caller: Caller, limit: Annotated[int, Query(ge=1, le=100)] = 20, page: Page = None
) -> dict[str, Any]:
    """List the caller's chats, the last changed first; pass ``next_page`` as ``page``.
    ``unreadable`` chats are left out."""
    caller.need(Scope.READ)
    listed = await list_all_chats(gateway, caller.id, most=limit, page=_parsed(page))
    return {"chats": listed.chats, "next_page": listed.next_page, "unreadable": listed.unreadable}


@router.get(
    "/chats/{chat_id:path}",
    operation_id="get_chat",
    summary="Read the turns of a chat",
    response_model=ChatTurns,
    responses=error_responses(
        *(*CALLER, "chat_not_found", "chat_gone", "stream_recovering", "content_unreadable"),
        *("invalid_request", "overloaded", "archive_unavailable"),
    ),
)
async def read_chat(
    gateway: Gateway,
    caller: Caller,
    chat_id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Page = None,
) -> dict[str, Any]:
    """Return the turns of a chat, the oldest first; pass ``next_page`` as ``page``. Large turns make a page
    shorter."""
    caller.need(Scope.READ)
    _check_given(chat_id)
    after, name = _parsed(page), ChatName(account_of(caller.id), chat_id)
    gateway.body_memory.begin(None if caller is ANONYMOUS else caller.id)
    chat = await find_chat(gateway.client, name)
    members = await list_all_members(gateway, caller.id, name, most=limit + 1, after=after)
    if chat is None and not members:
        raise ChatNotFound(_NOT_FOUND)
    listed = await list_turns(gateway, caller, members[:limit], has_more=len(members) > limit)
    if not listed.turns and (chat is None or (after is None and listed.next_page is None)):
        raise ChatGone(_GONE)
    return {
        "chat_id": chat_id,
        "title": listed.title,
        "created_at": listed.turns[0]["answer"]["created_at"] if chat is None else time_of(chat.created),
        "updated_at": listed.turns[-1]["answer"]["created_at"] if chat is None else time_of(chat.updated),
        "turns": listed.turns,
        "next_page": listed.next_page,
    }


@router.delete(
    "/chats/{chat_id:path}",
    operation_id="delete_chat",
    summary="Delete a chat",
    status_code=204,
    responses=error_responses(*CALLER, "chat_not_found", "archive_unavailable"),
)
async def delete_chat(gateway: Gateway, caller: Caller, chat_id: str) -> None:
    """Cancel the running streams of a chat, and delete the content of all of them."""
    caller.need(Scope.CANCEL)
    _check_given(chat_id)
    if not await delete_all(gateway, caller, ChatName(account_of(caller.id), chat_id)):
        raise ChatNotFound(_NOT_FOUND)


def _check_given(chat_id: str) -> None:
    """Refuse ``/chats/`` as a path that no route has."""
    if not chat_id:
        raise HTTPException(404)


def _parsed(page: str | None) -> tuple[int, str] | None:
    after = None if page is None else parse_page(page)
    if page is not None and after is None:
        raise InvalidRequest("page: invalid; use `next_page` of the previous response")
    return after
