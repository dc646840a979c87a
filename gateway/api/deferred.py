"""Answers for clients that take the HTTP status for the outcome: it is held back until there is a first word, or a
failure in its place."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from gateway.api.access import read_own
from gateway.auth.grants import Grant
from gateway.auth.principal import Principal
from gateway.dialects.append_only import CANCELLED
from gateway.dialects.options import ResponseOptions
from gateway.dialects.status_codes import GenerationFailed
from gateway.intake.dispatch import Dispatched, hash_of
from gateway.intake.submit import ask, check_key, headers_of, page_of
from gateway.live.renderer import NullRenderer, Renderer
from gateway.live.sse import StreamResponse, wait_for_disconnect
from gateway.live.subscription import Drained, Subscription
from gateway.state import GatewayState
from shared.broker.log import read_log
from shared.broker.retry_dedupe import find_request, forget_request, remember_request
from shared.errors import Draining, StreamGone, StreamNotFound
from shared.protocol import events
from shared.protocol.ids import START
from shared.protocol.lifecycle import Status
from shared.protocol.transcript import Transcript, fold
from shared.rate_limits import account_of
from shared.schemas import ChatRequest
from shared.scopes import Scope

#: Leaving is the only cancel that these clients know; so long one may be away.
GRACE_S = 2.0
_FAILED = frozenset({Status.FAILED, Status.CANCELLED})


class DeferredRenderer(Renderer, Protocol):
    """``failure``: an error that came before any output."""

    failure: events.Error | None


async def respond(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    asked: ChatRequest,
    wish: ResponseOptions,
    key: str | None,
    renderer_of: Callable[[str], DeferredRenderer],
    whole: Callable[[str, Transcript], dict[str, Any]],
) -> Response:
    """A stream by the renderer that ``renderer_of`` makes for a stream's id, or all of it by ``whole``."""
    caller.need(Scope.CHAT)
    right = Grant.of(caller)
    dispatched = await ask_once(request, gateway, caller, asked, key)
    stream_id = dispatched.stream_id
    headers = headers_of(dispatched) | {"X-Request-Id": stream_id, "Request-Id": stream_id}
    if wish.ignored:
        headers["X-Headrace-Ignored"] = ", ".join(wish.ignored)
    page = await page_of(gateway, right, dispatched, START)
    if not wish.stream:
        await first_chunk(
            request, Subscription(gateway.hub, stream_id, START, page, NullRenderer(), dispatched.queue_position)
        )
        return JSONResponse(whole(stream_id, await _whole_answer(gateway, stream_id)), headers=headers)
    renderer = renderer_of(stream_id)
    subscription = Subscription(gateway.hub, stream_id, START, page, renderer, dispatched.queue_position)
    first, chunks = await first_chunk(request, subscription)
    if renderer.failure is not None:
        await chunks.aclose()
        raise GenerationFailed(renderer.failure)
    return StreamResponse(_prepended(first, chunks), gateway.settings, gateway.live_grants.watch(right), headers)


async def ask_once(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    asked: ChatRequest,
    key: str | None,
    extra_fields: Mapping[str, str] | None = None,
) -> Dispatched:
    """As :func:`ask`; a retry of an SDK's own is the stream that its first try made, unless that failed."""
    check_key(key)
    if asked.grace_s is None and asked.on_disconnect != "continue":
        asked = asked.model_copy(update={"grace_s": GRACE_S})
    if key is not None:
        return await ask(gateway, caller, asked, key, on_disconnect="cancel", extra_fields=extra_fields)
    account, body_hash = account_of(caller.id), hash_of(asked, gateway.settings.secret)
    if _is_retry(request):
        known = await find_request(gateway.client, account, body_hash)
        if known is not None and await _stands(gateway, caller, known):
            return Dispatched(known, None)
    else:
        await forget_request(gateway.client, account, body_hash)
    dispatched = await ask(gateway, caller, asked, None, on_disconnect="cancel", extra_fields=extra_fields)
    await remember_request(gateway.client, account, body_hash, dispatched.stream_id)
    return dispatched


async def first_chunk(request: Request, subscription: Subscription) -> tuple[bytes, AsyncGenerator[bytes, None]]:
    """And those that follow; empty where the stream ended without any. Raises :class:`Draining` where this gateway
    leaves meanwhile, and ClientDisconnect where the client does."""
    chunks = subscription.chunks()
    coming = asyncio.ensure_future(anext(chunks, b""))
    leaving = asyncio.create_task(wait_for_disconnect(request.receive))
    try:
        await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))
            await chunks.aclose()
    if coming.cancelled():
        raise ClientDisconnect
    try:
        return coming.result(), chunks
    except Drained:
        raise Draining from None


async def _whole_answer(gateway: GatewayState, stream_id: str) -> Transcript:
    """Of a stream that has ended. Raises :class:`GenerationFailed` where it did so badly, whatever came before."""
    transcript = fold(map(events.decode, await read_log(gateway.client, gateway.scripts, stream_id)))
    if transcript.done is None:
        raise StreamGone
    if transcript.error is not None:
        raise GenerationFailed(transcript.error)
    if transcript.done.finish_reason == "cancelled":
        raise GenerationFailed(CANCELLED)
    return transcript


async def _prepended(first: bytes, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for chunk in chunks:
            yield chunk
    finally:
        await chunks.aclose()


def _is_retry(request: Request) -> bool:
    count = request.headers.get("x-stainless-retry-count", "")
    return count.isdecimal() and count.isascii() and int(count[:4]) > 0


async def _stands(gateway: GatewayState, caller: Principal, stream_id: str) -> bool:
    with suppress(StreamNotFound, StreamGone):
        page = await read_own(gateway, Grant.of(caller), stream_id, most_events=0)
        return page.status not in _FAILED
    return False
