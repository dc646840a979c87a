"""Answers for clients that take the HTTP status for the outcome: it is held back until there is a first word, or a
failure in its place."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from fastapi import Request
from starlette.requests import ClientDisconnect

from gateway.api.access import read_own
from gateway.api.asking import ask, page_of
from gateway.auth.principal import Principal
from gateway.auth.rights import Right
from gateway.dialects.failures import AnswerFailed
from gateway.dialects.quiet import Quiet
from gateway.dispatch import Dispatched, hash_of
from gateway.state import GatewayState
from gateway.subscription import Drained, Subscription
from shared.broker.ending import read_all
from shared.broker.recent import find_recent, note_recent
from shared.errors import Draining, StreamGone, StreamNotFound
from shared.limits import account_of
from shared.protocol import events
from shared.protocol.ids import START
from shared.protocol.lifecycle import Status
from shared.protocol.transcript import Transcript, fold
from shared.schemas import ChatRequest

#: Leaving is the only cancel that these clients know; so long one may be away.
GRACE_S = 2.0
_FAILED = frozenset({Status.FAILED, Status.CANCELLED})


async def ask_once(
    request: Request, gateway: GatewayState, caller: Principal, asked: ChatRequest, key: str | None
) -> Dispatched:
    """As :func:`ask`; a retry of an SDK's own is the stream that its first try made, unless that failed."""
    if asked.grace_s is None:
        asked = asked.model_copy(update={"grace_s": GRACE_S})
    if key is not None:
        return await ask(gateway, caller, asked, key, on_disconnect="cancel")
    account, body_hash = account_of(caller.id), hash_of(asked, gateway.settings.secret)
    if _is_retry(request):
        known = await find_recent(gateway.client, account, body_hash)
        if known is not None and await _stands(gateway, caller, known):
            return Dispatched(known, None)
    dispatched = await ask(gateway, caller, asked, None, on_disconnect="cancel")
    await note_recent(gateway.client, account, body_hash, dispatched.stream_id)
    return dispatched


async def first_chunk(request: Request, chunks: AsyncGenerator[bytes, None]) -> bytes:
    """Empty where the stream ended without any. Raises :class:`Draining` where this gateway leaves meanwhile, and
    ClientDisconnect where the client does."""
    coming = asyncio.ensure_future(anext(chunks, b""))
    leaving = asyncio.create_task(_until_disconnect(request))
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
        return coming.result()
    except Drained:
        raise Draining from None


async def whole_answer(request: Request, gateway: GatewayState, right: Right, dispatched: Dispatched) -> Transcript:
    """Once it has ended. Raises :class:`AnswerFailed` where it did so badly, whatever came before."""
    page = await page_of(gateway, right, dispatched, START)
    stream_id = dispatched.stream_id
    await first_chunk(request, Subscription(gateway.hub, stream_id, START, page, Quiet(), dispatched.place).chunks())
    transcript = fold(map(events.decode, await read_all(gateway.client, gateway.scripts, stream_id)))
    if transcript.done is None:
        raise StreamGone
    if transcript.error is not None:
        raise AnswerFailed(transcript.error)
    if transcript.done.finish_reason == "cancelled":
        raise AnswerFailed(events.Error("cancelled", "the answer was cancelled", retryable=False))
    return transcript


async def prepended(first: bytes, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
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
        page = await read_own(gateway, Right.of(caller), stream_id, most_events=0)
        return page.status not in _FAILED
    return False


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
