"""Deferred responses, for clients that take the HTTP status for the outcome: the status is sent with the first
output, or with the failure before it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from gateway.auth.grants import Grant
from gateway.auth.principal import Principal
from gateway.dialects.append_only import CANCELLED
from gateway.dialects.options import ResponseOptions
from gateway.dialects.status_codes import GenerationFailed
from gateway.intake.field_policy import add_ignored, requested_policy
from gateway.intake.priority import requested_priority
from gateway.intake.submit import Submission, submit, submit_without_key
from gateway.live.renderer import NullRenderer, Renderer
from gateway.live.sse import StreamResponse, wait_for_disconnect
from gateway.live.subscription import Drained, Subscription
from gateway.state import GatewayState
from shared.broker.log import read_log
from shared.errors import Draining, StreamGone, Unauthenticated
from shared.protocol import events
from shared.protocol.ids import START
from shared.protocol.transcript import Transcript, fold
from shared.schemas import ChatRequest

#: These clients cancel only by disconnecting; a stream survives this long without its client.
GRACE_S = 2.0

Result = TypeVar("Result")


class DeferredRenderer(Renderer, Protocol):
    """Renderer of a deferred response. ``failure``: an error before any output. ``ignored``: paths of the request's
    fields that have no effect, known with the first output."""

    failure: events.Error | None
    ignored: tuple[str, ...]

    def open(self) -> bytes:
        """Return the first bytes of a response whose status is sent before any output. Errors are rendered from now
        on."""
        ...


async def respond(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    submission: Submission,
    *,
    options: ResponseOptions,
    renderer_of: Callable[[str], DeferredRenderer],
    body_of: Callable[[str, Transcript], dict[str, Any]],
) -> Response:
    """Respond with a stream, rendered by the result of ``renderer_of`` for the stream's id, or with the whole answer
    as JSON, built by ``body_of``. The caller must have the scope ``chat``.

    Routes that can have a large request delete it before: the wait for the first output may be long."""
    stream_id = submission.stream_id
    headers = submission.headers | {"X-Request-Id": stream_id, "Request-Id": stream_id}
    if not options.stream:
        await wait_until_ended(request, gateway, caller, submission)
        transcript = await _whole_answer(gateway, stream_id)
        add_ignored(headers, (*options.ignored, *((transcript.start.ignored or ()) if transcript.start else ())))
        return JSONResponse(body_of(stream_id, transcript), headers=headers)
    renderer = renderer_of(stream_id)
    subscription = _subscribe(gateway, submission, renderer)
    chunks = await _begun(request, gateway, caller, subscription, renderer)
    if renderer.failure is not None:
        await chunks.aclose()
        raise GenerationFailed(renderer.failure)
    add_ignored(headers, (*options.ignored, *renderer.ignored))
    grant = gateway.live_grants.watch(Grant.of(caller))
    return StreamResponse(chunks, gateway.settings, grant, headers, subscription)


async def submit_once(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    chat_request: ChatRequest,
    key: str | None,
    extra_fields: Mapping[str, str] | None = None,
) -> Submission:
    """Submit the request. Without a key, an automatic retry of an SDK attaches to the stream of the first try."""
    if chat_request.grace_s is None and chat_request.on_disconnect != "continue":
        chat_request = chat_request.model_copy(update={"grace_s": GRACE_S})
    policy, priority = requested_policy(request), requested_priority(request)
    if key is not None:
        return await submit(
            gateway,
            caller,
            chat_request,
            key,
            on_disconnect="cancel",
            extra_fields=extra_fields,
            unsupported_fields=policy,
            priority=priority,
        )
    return await submit_without_key(
        gateway,
        caller,
        chat_request,
        is_retry=_is_retry(request),
        on_disconnect="cancel",
        extra_fields=extra_fields,
        unsupported_fields=policy,
        priority=priority,
    )


async def wait_until_ended(
    request: Request, gateway: GatewayState, caller: Principal, submission: Submission
) -> None:
    """Wait for the end of the stream as one of its readers. Raises as :func:`_while_granted` does."""
    async with aclosing(_subscribe(gateway, submission, NullRenderer()).chunks()) as chunks:
        # A NullRenderer renders no chunk before the end.
        await _while_granted(request, gateway, caller, anext(chunks, None))


def _subscribe(gateway: GatewayState, submission: Submission, renderer: Renderer) -> Subscription:
    return Subscription(
        gateway.hub, submission.stream_id, START, submission.log_page, renderer, submission.queue_position
    )


async def _begun(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    subscription: Subscription,
    renderer: DeferredRenderer,
) -> AsyncGenerator[bytes, None]:
    """Wait for the first chunk, and return the generator of it and all others. After a long silence, do not wait: the
    generator then begins with ``renderer.open()``. Raises as :func:`_while_granted` does."""
    chunks = subscription.chunks()
    first = asyncio.ensure_future(anext(chunks, b""))
    try:
        early_s = gateway.settings.early_headers_s or None
        is_silent = await _while_granted(request, gateway, caller, first, early_s) is None
    except BaseException:
        await chunks.aclose()
        raise
    begun = _prepended(renderer.open() if is_silent else b"", first, chunks)
    await anext(begun)  # only a generator that has begun cleans up
    return begun


async def _while_granted(
    request: Request,
    gateway: GatewayState,
    caller: Principal,
    waiting: Awaitable[Result],
    most_s: float | None = None,
) -> Result | None:
    """Await ``waiting``, but cancel it if the client disconnects or its credentials end. Return None, and leave it
    alone, if it takes longer than ``most_s``. Raises :class:`Draining` if this gateway drains meanwhile,
    ClientDisconnect, and :class:`Unauthenticated`."""
    result = asyncio.ensure_future(waiting)
    leaving = asyncio.create_task(wait_for_disconnect(request.receive))
    with gateway.live_grants.watch(Grant.of(caller)) as ended:
        is_late = False
        try:
            awaited = (result, leaving, ended)
            done, _ = await asyncio.wait(awaited, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
            is_late = not done
        finally:
            leaving.cancel()
            if not result.done() and not is_late:
                result.cancel()
                await asyncio.wait((result,))
    if is_late:
        return None
    if ended.done():
        raise Unauthenticated("the credentials have expired or were revoked meanwhile")
    if result.cancelled():
        raise ClientDisconnect
    try:
        return result.result()
    except Drained:
        raise Draining from None


async def _whole_answer(gateway: GatewayState, stream_id: str) -> Transcript:
    """Read the answer of a stream that has ended. Raises :class:`GenerationFailed` if it failed, even after
    output."""
    transcript = fold(map(events.decode, await read_log(gateway.client, gateway.scripts, stream_id)))
    if transcript.done is None:
        raise StreamGone
    if transcript.error is not None:
        raise GenerationFailed(transcript.error)
    if transcript.done.finish_reason == "cancelled":
        raise GenerationFailed(CANCELLED)
    return transcript


async def _prepended(
    opening: bytes, first: asyncio.Future[bytes], chunks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield nothing at first, then ``opening``, if there is one, and all chunks."""
    try:
        yield b""
        if opening:
            yield opening
        yield await first
        async for chunk in chunks:
            yield chunk
    finally:
        if first.cancel():
            await asyncio.wait((first,))
        await chunks.aclose()


def _is_retry(request: Request) -> bool:
    count = request.headers.get("x-stainless-retry-count", "")
    return count.isdecimal() and count.isascii() and int(count[:4]) > 0
