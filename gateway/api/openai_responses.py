"""``/v1/responses``, for OpenAI's SDKs: streams that can be read again from any number, also in the background."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from gateway.api import deferred as held
from gateway.api import streams
from gateway.api.access import read_own
from gateway.api.body import read_body
from gateway.api.parameters import IdempotencyKey
from gateway.api.previous_responses import PREFIX, conversation_of, items_of, replay_of, stream_id_of
from gateway.auth.grants import Grant
from gateway.auth.principal import Scope
from gateway.dialects.openai_responses import request as responses_request
from gateway.dialects.openai_responses.stream import About, ResponseEvents
from gateway.dialects.status_codes import GenerationFailed
from gateway.intake.submit import headers_of, page_of
from gateway.live.renderer import NullRenderer
from gateway.live.sse import StreamResponse
from gateway.live.subscription import Subscription
from gateway.state import Caller, Gateway, GatewayState
from shared.broker.replies import LogPage
from shared.broker.status import read_kept, read_state
from shared.errors import StreamGone
from shared.protocol.ids import START
from shared.protocol.lifecycle import Status

router = APIRouter(prefix="/v1/responses", include_in_schema=False)  # described by OpenAI, not here

StreamId = Annotated[str, Depends(stream_id_of)]


@router.post("")
async def create(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """In the background it goes on whoever reads; else it is cancelled when its reader leaves."""
    caller.need(Scope.CHAT)
    body = await read_body(request, gateway.settings.max_body_bytes)
    previous = responses_request.previous_of(body)
    earlier = await conversation_of(gateway, Grant.of(caller), previous) if previous is not None else []
    referred = await items_of(gateway, Grant.of(caller), responses_request.references_of(body))
    asked, wish = responses_request.parse(body, earlier, referred)
    kept = "continue" if wish.background else "cancel"
    asked = asked.model_copy(update={"on_disconnect": asked.on_disconnect or kept})
    echoed = {"background": wish.background, "previous_response_id": previous}
    more = {"response": msgspec.json.encode(echoed).decode()}
    if wish.store:
        more["follow_up"] = str(wish.instructions)
    dispatched = await held.ask_once(request, gateway, caller, asked, idempotency_key, more)
    stream_id, right = dispatched.stream_id, Grant.of(caller)
    headers = headers_of(dispatched) | {"X-Request-Id": stream_id}
    if wish.ignored:
        headers["X-Headrace-Ignored"] = ", ".join(wish.ignored)
    about = await _about(gateway, stream_id)
    page = await page_of(gateway, right, dispatched, START)
    if wish.stream:
        return _stream(gateway, right, about, page, headers=headers)
    if not wish.background:
        await held.first_chunk(
            request, Subscription(gateway.hub, stream_id, START, page, NullRenderer(), dispatched.place)
        )
    replayed = await replay_of(gateway, about)
    if not wish.background and replayed.failure is not None:
        raise GenerationFailed(replayed.failure)
    if not (wish.background or replayed.is_over):
        raise StreamGone  # it was deleted, or lost, while it was waited for
    return JSONResponse(replayed.response.body, headers=headers)


@router.get("/{response_id}")
async def retrieve(
    gateway: Gateway,
    caller: Caller,
    stream_id: StreamId,
    *,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1)] = -1,
) -> Response:
    """As it stands, or as a stream of what comes after that number."""
    caller.need(Scope.READ)
    right = Grant.of(caller)
    page = await read_own(gateway, right, stream_id, START)
    about = await _about(gateway, stream_id)
    if stream:
        return _stream(gateway, right, about, page, after=starting_after)
    return await _as_it_stands(gateway, about, page.status)


@router.post("/{response_id}/cancel")
async def cancel(gateway: Gateway, caller: Caller, stream_id: StreamId) -> Response:
    """Again, or after the end, it changes nothing."""
    caller.need(Scope.CANCEL)
    cancelled = await streams.cancel(stream_id, gateway, Grant.of(caller))
    return await _as_it_stands(gateway, await _about(gateway, stream_id), cancelled["status"])


@router.delete("/{response_id}")
async def delete(gateway: Gateway, caller: Caller, stream_id: StreamId) -> dict[str, Any]:
    await streams.delete(stream_id, gateway, caller)
    return {"id": f"{PREFIX}{stream_id}", "object": "response", "deleted": True}


def _stream(
    gateway: GatewayState,
    right: Grant,
    about: About,
    page: LogPage,
    *,
    after: int = -1,
    headers: dict[str, str] | None = None,
) -> Response:
    renderer = ResponseEvents(about, after=after)
    subscription = Subscription(gateway.hub, about.stream_id, START, page, renderer)
    return StreamResponse(subscription.chunks(), gateway.settings, gateway.rights.watch(right), headers)


async def _as_it_stands(gateway: GatewayState, about: About, status: str) -> Response:
    response = (await replay_of(gateway, about)).response
    if status == Status.RUNNING and response.status == "queued":  # its provider has not said a word yet
        response.status = "in_progress"
    return JSONResponse(response.body)


async def _about(gateway: GatewayState, stream_id: str) -> About:
    state = await read_state(gateway.client, gateway.scripts.sealing, stream_id)
    if state is None or state.created_at is None:
        raise StreamGone
    created_at = int(datetime.fromisoformat(state.created_at).timestamp())
    kept = await read_kept(gateway.client, gateway.scripts.sealing, stream_id, "response")
    asked = msgspec.json.decode(kept) if kept else {}  # asked for in another dialect
    return About(stream_id, f"{state.provider}/{state.model}", created_at, metadata=state.metadata, **asked)
