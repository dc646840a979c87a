"""Routes ``/v1/responses`` about a request instead of its answer: its items, its tokens, and refused upgrades."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from gateway.api import examples
from gateway.api.body import read_body
from gateway.api.deferred import respond, submit_once
from gateway.api.descriptions import OPENAI, dialect_body, openai_answers
from gateway.api.previous_responses import compose_request, stream_id_of
from gateway.api.token_counts import ESTIMATED, estimated_tokens
from gateway.archive.reads import find_archived, read_stored_fields
from gateway.auth.grants import Grant
from gateway.auth.ownership import read_own
from gateway.auth.principal import ANONYMOUS
from gateway.chats.earlier_turns import request_of
from gateway.dialects.append_only import AppendOnlyRenderer
from gateway.dialects.openai_responses.listed_items import items_of
from gateway.dialects.options import ResponseOptions
from gateway.intake.body_memory import releases_body, run_beside_loop
from gateway.state import LIVE_CONNECTION, Caller, Gateway, GatewayState
from shared.errors import InvalidRequest, StreamGone, StreamNotFound
from shared.protocol.transcript import Transcript
from shared.schemas.stored_request import stored_messages
from shared.scopes import Scope

router = APIRouter(prefix="/v1/responses", tags=[OPENAI])

StreamId = Annotated[str, Depends(stream_id_of)]


@router.post(
    "/input_tokens",
    operation_id="count_response_input_tokens",
    summary="Count the tokens of a response's input",
    response_class=Response,
    responses=openai_answers("ResponseTokens"),
    openapi_extra=dialect_body("ResponseRequest", examples.RESPONSE),
    dependencies=[LIVE_CONNECTION],
)
async def count(request: Request, gateway: Gateway, caller: Caller) -> Response:
    """Count the tokens of a request. A provider's count takes one request of the limits and none of their tokens. An
    estimate, for other providers, takes nothing, and the header ``X-Headrace-Estimated`` names it."""
    caller.need(Scope.CHAT)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    composed = await compose_request(gateway, caller, body)
    chat_request = composed.chat_request.model_copy(update={"only_count": True})
    estimate = await estimated_tokens(gateway, caller, chat_request)
    if estimate is not None:
        return JSONResponse(_count(estimate), headers=ESTIMATED)
    return await respond(
        request,
        gateway,
        caller,
        await submit_once(request, gateway, caller, chat_request, key=None),
        options=ResponseOptions(stream=False, ignored=composed.options.ignored),
        renderer_of=lambda _: AppendOnlyRenderer(),
        body_of=_counted,
    )


@router.get(
    "/{response_id}/input_items",
    operation_id="list_response_input_items",
    summary="List the input of a response",
    responses=openai_answers("ResponseItems"),
)
async def input_items(
    gateway: Gateway,
    caller: Caller,
    stream_id: StreamId,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    """List the items that the response was generated from, with those of the responses that it continues."""
    caller.need(Scope.READ)
    try:
        await read_own(gateway, Grant.of(caller), stream_id, most_events=0)
    except (StreamGone, StreamNotFound) as error:
        await find_archived(gateway, Grant.of(caller), stream_id, error)
    items = await _items(gateway, caller, stream_id)
    if order == "desc":
        items.reverse()
    if after is not None:
        items = items[_position(items, after) + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(page) < len(items),
    }


@releases_body
async def _items(gateway: GatewayState, caller: Caller, stream_id: str) -> list[dict[str, Any]]:
    gateway.body_memory.begin(
        None if caller is ANONYMOUS else caller.id
    )  # a request of megabytes takes its part, as it did when it came
    names = ("status", "follow_up", "request", "request_bytes")
    state = await read_stored_fields(gateway, stream_id, names)
    request = await request_of(gateway, stream_id, state)
    if request is None or state["follow_up"] is None:
        raise StreamNotFound("response: its input was not stored; create it with store: true")
    messages = await run_beside_loop(stored_messages, request)
    return items_of(stream_id, messages[int(state["follow_up"]) :])


def _position(items: list[dict[str, Any]], item_id: str) -> int:
    for at, item in enumerate(items):
        if item["id"] == item_id:
            return at
    raise InvalidRequest("after: no such item; use an id of the list")


def _counted(_: str, transcript: Transcript) -> dict[str, Any]:
    usage = transcript.done.usage if transcript.done else None
    return _count(usage.input_tokens if usage else 0)


def _count(tokens: int) -> dict[str, Any]:
    return {"object": "response.input_tokens", "input_tokens": tokens}
