"""Routes ``/api/chat`` for ``useChat`` of Vercel's AI SDK, which names its chat's id and never a stream's."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.api import examples, streams
from gateway.api.body import read_body
from gateway.api.descriptions import AI_SDK, dialect_body, native_answers
from gateway.api.parameters import IdempotencyKey
from gateway.archive.reads import open_archived_log, read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.auth.principal import Principal
from gateway.chats.history import title_of
from gateway.dialects.ai_sdk import request as ui_message_request
from gateway.dialects.ai_sdk.stream import DONE, UiMessageChunks
from gateway.edge.acked import was_acked
from gateway.intake.body_memory import run_beside_loop
from gateway.intake.field_policy import requested_policy
from gateway.intake.priority import requested_priority
from gateway.intake.submit import submit
from gateway.live.sse import StreamResponse
from gateway.live.subscription import StreamSource, Subscription
from gateway.state import LIVE_CONNECTION, Caller, Gateway, GatewayState
from shared.broker.chats import Chat, ChatName, find_chat, note_latest, note_received
from shared.broker.replies import LogPage
from shared.broker.status import read_field
from shared.errors import BrokerUnavailable, Draining, StreamGone, StreamNotFound
from shared.protocol.ids import START
from shared.protocol.lifecycle import TERMINAL
from shared.rate_limits import account_of
from shared.schemas.chat import parse_json_object
from shared.scopes import Scope

router = APIRouter(prefix="/api/chat", tags=[AI_SDK])

_EVENTS: Final = "The AI SDK's UI message stream, then `[DONE]`."

_HEADERS = {"X-Vercel-AI-UI-Message-Stream": "v1"}


def _chat_id(chat_id: str) -> str:
    return ui_message_request.check_chat_id(chat_id)


ChatId = Annotated[str, Depends(_chat_id)]


@router.post(
    "",
    operation_id="send_ui_message",
    summary="Answer the last message of a chat",
    response_class=Response,
    responses=native_answers(None, _EVENTS),
    openapi_extra=dialect_body("UiChatRequest", examples.UI_MESSAGE),
    dependencies=[LIVE_CONNECTION],
)
async def send(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Stream the answer to the last message. It continues without readers: the SDK's ``stop()`` only stops
    reading."""
    caller.need(Scope.CHAT)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request, options = await run_beside_loop(ui_message_request.parse, body, gateway.settings.default_model)
    extra_fields = {"chat": options.chat_id, "title": title_of(chat_request)}
    if options.shown:
        extra_fields["shown"] = msgspec.json.encode(options.shown).decode()
    submission = await submit(
        gateway,
        caller,
        chat_request,
        idempotency_key,
        on_disconnect="continue",
        extra_fields=extra_fields,
        unsupported_fields=requested_policy(request),
        priority=requested_priority(request),
    )
    stream_id = submission.stream_id
    message_id = options.message_id or _default_id(stream_id)
    is_of_chat = submission.created or await _is_of_chat(gateway, stream_id, options.chat_id)
    if is_of_chat:
        await note_latest(gateway.client, gateway.scripts, _name(caller, options.chat_id), stream_id, message_id)
    subscription = Subscription(
        gateway.hub,
        stream_id,
        START,
        submission.log_page,
        UiMessageChunks(message_id),
        submission.queue_position,
    )
    chat_id = options.chat_id if is_of_chat else None
    ignored = {"X-Headrace-Ignored": ", ".join(options.ignored)} if options.ignored else {}
    return _stream(request, gateway, caller, chat_id, subscription, submission.headers | ignored)


@router.get(
    "/{chat_id:path}/stream",
    operation_id="resume_ui_stream",
    summary="Resume the latest answer of a chat",
    response_class=Response,
    responses={**native_answers(None, _EVENTS), 204: {"description": "There is nothing to resume."}},
    dependencies=[LIVE_CONNECTION],
)
async def resume(
    request: Request, gateway: Gateway, caller: Caller, chat_id: ChatId, *, ended: bool = False
) -> Response:
    """Stream the whole latest answer, while it is generated and until a client has received its end; 204 otherwise.
    ``ended``: also an answer that was received before."""
    caller.need(Scope.READ)
    if gateway.hub.draining:
        raise Draining
    chat = await find_chat(gateway.client, _name(caller, chat_id))
    if chat is None or (opened := await _open(gateway, caller, chat)) is None:
        return Response(status_code=204)
    source, log_page = opened
    if log_page.status in TERMINAL and chat.received and not ended:
        return Response(status_code=204)
    shown = (await read_stored_fields(gateway, chat.stream_id, ("status", "shown")))["shown"]
    renderer = UiMessageChunks(_message_id(gateway, chat), msgspec.json.decode(shown) if shown else None)
    subscription = Subscription(source, chat.stream_id, START, log_page, renderer)
    return _stream(request, gateway, caller, chat_id, subscription, {"X-Stream-Id": chat.stream_id})


@router.post(
    "/{chat_id:path}/stop",
    operation_id="stop_ui_stream",
    summary="Stop the latest answer of a chat",
    responses=native_answers("UiStopped"),
    openapi_extra=dialect_body("UiStopRequest", {}, required=False),
)
async def stop(request: Request, gateway: Gateway, caller: Caller, chat_id: ChatId) -> dict[str, Any]:
    """Stop the current answer and keep its text so far. If the body names another one by ``activeStreamId`` or
    ``assistantMessage``, do nothing: a click may come late."""
    caller.need(Scope.CANCEL)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    chat = await find_chat(gateway.client, _name(caller, chat_id))
    if chat is None or not _is_meant(gateway, chat, parse_json_object(body) if body else {}):
        return {"success": True, "stream_id": None}
    with suppress(StreamNotFound, StreamGone):
        await streams.cancel(chat.stream_id, gateway, Grant.of(caller))
        await note_received(gateway.client, gateway.scripts, _name(caller, chat_id), chat.stream_id)
    return {"success": True, "stream_id": chat.stream_id}


def _stream(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    chat_id: str | None,
    subscription: Subscription,
    headers: dict[str, str],
) -> Response:
    chunks = _until_end(request, gateway, caller, chat_id, subscription)
    watched = gateway.live_grants.watch(Grant.of(caller))
    return StreamResponse(chunks, gateway.settings, watched, headers | _HEADERS, subscription)


async def _until_end(
    request: Request, gateway: GatewayState, caller: Principal, chat_id: str | None, subscription: Subscription
) -> AsyncGenerator[bytes, None]:
    """Send the final chunk only after noting that the client has the rest, so that its next resume gets 204.
    ``chat_id``: None for a stream that is not noted as the chat's latest."""
    async with aclosing(subscription.chunks()) as chunks:
        async for chunk in chunks:
            yield chunk
    if chat_id is not None and await was_acked(request.scope):
        with suppress(BrokerUnavailable):  # then the client gets the answer once more
            await note_received(gateway.client, gateway.scripts, _name(caller, chat_id), subscription.stream_id)
    yield DONE


def _name(caller: Principal, chat_id: str) -> ChatName:
    return ChatName(account_of(caller.id), chat_id)


def _message_id(gateway: GatewayState, chat: Chat) -> str:
    """Return the client's id of the latest answer. Raises :class:`ContentUnreadable`."""
    message_id = gateway.scripts.sealing.open(chat.stream_id, chat.message).decode()
    return message_id or _default_id(chat.stream_id)


def _default_id(stream_id: str) -> str:
    return f"msg_{stream_id}"


async def _is_of_chat(gateway: GatewayState, stream_id: str, chat_id: str) -> bool:
    """Return True if the stream was created for this chat. A replay for another chat is not noted: it is free, so
    that replays could fill Redis."""
    return await read_field(gateway.client, gateway.scripts.sealing, stream_id, "chat") == chat_id


async def _open(gateway: GatewayState, caller: Principal, chat: Chat) -> tuple[StreamSource, LogPage] | None:
    """Return the source of a chat's latest answer, with its first page; None if it is gone."""
    grant, stream_id = Grant.of(caller), chat.stream_id
    try:
        return gateway.hub, await read_own(gateway, grant, stream_id, START)
    except (StreamNotFound, StreamGone) as error:
        with suppress(StreamNotFound, StreamGone):
            log = await open_archived_log(gateway, grant, stream_id, error, status_url=f"/chat/{stream_id}")
            return log, log.page(START)
    return None


def _is_meant(gateway: GatewayState, chat: Chat, body: dict[str, Any]) -> bool:
    message = body.get("assistantMessage")
    named = (body.get("activeStreamId"), message.get("id") if isinstance(message, dict) else None)
    actual = (chat.stream_id, _message_id(gateway, chat))
    return all(name in (None, own) for name, own in zip(named, actual, strict=True))
