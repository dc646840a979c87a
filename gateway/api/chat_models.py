"""Response bodies of the routes of chats; see response_models.py."""

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from gateway.api.response_models import Moment, StatusWord, StreamStatus


class ChatSummary(TypedDict):
    """One chat. ``title``: the beginning of its first user message. ``streams``: the number of its streams, also of
    those that are gone. ``status`` and ``model`` are those of ``last_stream_id``."""

    chat_id: str
    title: str
    streams: int
    last_stream_id: str
    status: StatusWord
    model: str | None
    provider: str | None
    created_at: Moment | None
    updated_at: Moment | None


class ChatList(TypedDict):
    """One page of chats. ``next_page`` goes into ``page``; null at the end. ``unreadable``: number of chats that are
    left out, because the server has no key for them."""

    chats: list[ChatSummary]
    next_page: str | None
    unreadable: int


class ChatTurn(TypedDict):
    """One stream of a chat. ``history``: that of its request; ``given`` if it replaced the conversation before it.
    ``messages``: the new ones of its request, in the form in which ``POST /chat`` accepts
    them; null if the server does not keep them, because the client does. ``answer``: as ``GET /chat/{stream_id}``
    returns it; its ``position`` is null."""

    stream_id: str
    stream_url: str
    status_url: str
    status: StatusWord
    model: str
    history: Annotated[str | None, Field(json_schema_extra={"enum": ["added", "given", None]})]
    messages: list[dict[str, Any]] | None
    answer: StreamStatus


class ChatTurns(TypedDict):
    """A chat and one page of its turns, oldest first. Turns that are gone are left out."""

    chat_id: str
    title: str
    created_at: Moment | None
    updated_at: Moment | None
    turns: list[ChatTurn]
    next_page: str | None
