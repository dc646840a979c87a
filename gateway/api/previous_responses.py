"""Content of earlier responses, for a request that continues one or names their items."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic_core import to_json

from gateway.archive.reads import read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own_logs
from gateway.auth.principal import Principal
from gateway.chats.earlier_turns import LOG_BYTES_PER_BYTE, MOST_LOG_BYTES, NotKept, StillRunning, read_turn
from gateway.dialects.openai_responses import request as responses_request
from gateway.dialects.openai_responses.original import as_items
from gateway.dialects.openai_responses.request import ResponsesOptions
from gateway.dialects.openai_responses.response import ResponseInfo, decode_stored
from gateway.dialects.openai_responses.stream import ResponseEvents
from gateway.intake.body_memory import run_beside_loop
from gateway.live.batch import Batch
from gateway.state import GatewayState
from shared.broker.log import LogsTooLarge, read_log
from shared.errors import InvalidRequest, PreviousResponseNotFound, StreamNotFound
from shared.protocol.events import is_done
from shared.protocol.ids import EventId, is_stream_id
from shared.provider_fields import NO_RESPONSE
from shared.response_items import stream_of
from shared.schemas import ChatRequest, StoredRequest
from shared.scopes import Scope

PREFIX: Final = "resp_"
_MOST_REFERENCES: Final = 128
_NOT_HERE: Final = f"previous_response_id: {NO_RESPONSE}"
_STILL_RUNNING: Final = "previous_response_id: that response is still in progress; wait for its end"
_TOO_LARGE: Final = "previous_response_id: that response is too large to continue; begin a new conversation"
_OF_A_CONVERSATION: Final = (
    "previous_response_id: that response belongs to a conversation of its provider; set conversation instead"
)


def stream_id_of(response_id: str) -> str:
    """Return the stream id. Raises :class:`StreamNotFound`."""
    if not response_id.startswith(PREFIX):
        raise StreamNotFound
    return response_id.removeprefix(PREFIX)


@dataclass(frozen=True, slots=True)
class Earlier:
    """Content of earlier responses. ``messages``: those before the input, and ``input``: the same as items.
    ``items``: by id, with the other items of their responses. ``stream_ids``: the streams that they are from.
    ``base``: id of a response that only the provider has, before all of these. ``lacks_original``: the items lack the
    input of an earlier request, which went on without its original (see ``request_hooks.py``)."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    input: list[Any] = field(default_factory=list)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    stream_ids: tuple[str, ...] = ()
    base: str | None = None
    lacks_original: bool = False


@dataclass(frozen=True, slots=True)
class ComposedRequest:
    """A request with the earlier content that it refers to. ``previous``: id of the response that it continues."""

    chat_request: ChatRequest
    options: ResponsesOptions
    earlier: Earlier
    previous: str | None


async def compose_request(gateway: GatewayState, caller: Principal, body: bytes) -> ComposedRequest:
    """Parse a request, and read the content that it refers to, for which the caller needs the scope ``read``. Raises
    like :func:`responses_request.parse`."""
    previous = await run_beside_loop(responses_request.previous_of, body)
    referred = await run_beside_loop(responses_request.references_of, body)
    if previous is not None or referred:
        caller.need(Scope.READ)
    earlier = await read_earlier(gateway, Grant.of(caller), previous, referred)
    chat_request, options = await run_beside_loop(
        responses_request.parse, body, earlier.messages, earlier.items, earlier.input, earlier.base
    )
    if earlier.lacks_original and isinstance(chat_request, StoredRequest):
        chat_request = chat_request.model_copy(update={"original": None})  # it would lack the earlier turns
    await run_beside_loop(check_size, chat_request, earlier, gateway.settings.max_conversation_bytes)
    return ComposedRequest(chat_request, options, earlier, previous)


async def read_earlier(gateway: GatewayState, grant: Grant, previous: str | None, item_ids: Sequence[str]) -> Earlier:
    """Return the content that a request refers to: by ``previous``, a response's id, or by the ids of items. Items
    that are missing, or belong to others, are left out. Raises :class:`InvalidRequest`."""
    if len(item_ids) > _MOST_REFERENCES:
        problem = f"{len(item_ids)} item references, more than {_MOST_REFERENCES}"
        raise InvalidRequest(f"input: {problem}; send the items themselves, or set previous_response_id")
    previous_id, base = _divided(previous)
    ids = {stream_id for item_id in item_ids if (stream_id := stream_of(item_id)) is not None}
    wanted = dict.fromkeys([*([previous_id] if previous_id else []), *sorted(ids)])
    if not wanted:
        return Earlier(base=base)
    most = min(gateway.settings.max_conversation_bytes * LOG_BYTES_PER_BYTE, MOST_LOG_BYTES)
    try:
        found = await read_own_logs(gateway, grant, wanted, most_bytes=most)
    except LogsTooLarge:
        raise InvalidRequest("input: refers to responses that are too large together; refer to fewer") from None
    logs = {stream_id: log.events for stream_id, log in found.items()}
    messages, before, lacks = list[dict[str, Any]](), list[Any](), False
    if previous_id is not None:
        messages, before, base, lacks = await _conversation_of(gateway, previous_id, logs.get(previous_id))
    items: dict[str, dict[str, Any]] = {}
    for stream_id in ids & logs.keys():
        output = await _output_of(gateway, stream_id, logs[stream_id])
        items |= {item["id"]: item for item in output}
    return Earlier(messages, before, items, tuple(logs), base, lacks)


async def read_output(gateway: GatewayState, grant: Grant, stream_id: str) -> list[dict[str, Any]]:
    """Return the items of the answer of a response that has ended. Raises :class:`InvalidRequest`, such as
    :class:`PreviousResponseNotFound`."""
    try:
        found = await read_own_logs(gateway, grant, (stream_id,), most_bytes=MOST_LOG_BYTES)
    except LogsTooLarge:
        raise InvalidRequest(_TOO_LARGE) from None
    if (log := found.get(stream_id)) is None:
        raise PreviousResponseNotFound(_NOT_HERE)
    if not log.events or not is_done(log.events[-1]):
        raise InvalidRequest(_STILL_RUNNING)
    return await _output_of(gateway, stream_id, log.events)


async def _output_of(gateway: GatewayState, stream_id: str, stored: list[bytes]) -> list[dict[str, Any]]:
    """Return the items of an answer, with their encrypted reasoning."""
    state = await read_stored_fields(gateway, stream_id, ("status", "response"))
    attributes = msgspec.structs.replace(decode_stored(state["response"]), encrypts_reasoning=True)
    return (await render_events(ResponseInfo(stream_id, "", 0, attributes), stored)).response.output


def check_size(chat_request: ChatRequest, earlier: Earlier, most_bytes: int) -> None:
    """Raise :class:`InvalidRequest` if a request is too large with the earlier content that it refers to."""
    if not earlier.stream_ids:
        return
    fields = chat_request.model_dump_json(exclude_none=True, exclude={"original"}).encode()
    original = chat_request.original.body if isinstance(chat_request, StoredRequest) and chat_request.original else {}
    check_conversation(max(len(fields), len(to_json(original))), most_bytes)


def check_conversation(size: int, most_bytes: int) -> None:
    """Raise :class:`InvalidRequest` if a request of ``size`` bytes, with its earlier turns, is too large."""
    if size > most_bytes:
        problem = f"has {size} bytes with the earlier turns that it refers to; the limit is {most_bytes}"
        raise InvalidRequest(f"input: {problem}; begin a new conversation, or send a summary of the earlier turns")


def _divided(previous: str | None) -> tuple[str | None, str | None]:
    """Return the stream of the gateway's own response, or the id of one that only a provider can have."""
    if previous is None:
        return None, None
    if not previous.startswith(PREFIX):
        raise PreviousResponseNotFound(_NOT_HERE)
    stream_id = previous.removeprefix(PREFIX)
    return (stream_id, None) if is_stream_id(stream_id) else (None, previous)


async def _conversation_of(
    gateway: GatewayState, stream_id: str, stored: list[bytes] | None
) -> tuple[list[dict[str, Any]], list[Any], str | None, bool]:
    """Return the messages of an earlier response, without its instructions, and its answer; the same as items; the id
    of the provider's response before them; and True if the items lack the input: the request has no original."""
    if stored is None:
        raise PreviousResponseNotFound(_NOT_HERE)
    try:
        turn = await read_turn(gateway, stream_id, stored)
    except NotKept:
        raise PreviousResponseNotFound(_NOT_HERE) from None
    except StillRunning:
        raise InvalidRequest(_STILL_RUNNING) from None
    if turn.body.get("conversation") is not None:
        raise InvalidRequest(_OF_A_CONVERSATION)
    output = await _output_of(gateway, stream_id, turn.events)
    items = [*as_items(turn.body.get("input")), *output]
    return [*turn.inherited, *turn.answer], items, turn.body.get("previous_response_id"), not turn.body


async def replay_of(gateway: GatewayState, about: ResponseInfo) -> ResponseEvents:
    """Render all events of a response so far."""
    return await render_events(about, await read_log(gateway.client, gateway.scripts, about.stream_id))


async def render_events(about: ResponseInfo, stored: list[bytes]) -> ResponseEvents:
    renderer = ResponseEvents(about)
    if stored:  # possibly many: keep the event loop free
        await asyncio.to_thread(
            renderer.render, Batch([(b"0-0", event) for event in stored], EventId(0, len(stored)))
        )
    return renderer
