"""Routes ``/v1/messages``, for Anthropic's SDKs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gateway.api import examples
from gateway.api.body import read_body
from gateway.api.deferred import respond, submit_once
from gateway.api.descriptions import ANTHROPIC, anthropic_answers, dialect_body
from gateway.api.live_route import LiveRoute
from gateway.api.parameters import IdempotencyKey
from gateway.api.token_counts import ESTIMATED, estimated_tokens
from gateway.dialects.anthropic import request as anthropic_request
from gateway.dialects.anthropic.stream import MessageEvents, message, token_count
from gateway.intake.body_memory import run_beside_loop
from gateway.state import Caller, Gateway
from shared.protocol.usage import Estimate
from shared.schemas import ChatRequest
from shared.scopes import Scope

router = APIRouter(route_class=LiveRoute, tags=[ANTHROPIC])


@router.post(
    "/v1/messages",
    operation_id="create_message",
    summary="Create a message",
    response_class=Response,
    responses=anthropic_answers("MessagesAnswer", "With `stream: true`: events of Anthropic's format."),
    openapi_extra=dialect_body("MessagesRequest", examples.MESSAGE),
)
async def create(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Anthropic's Messages, from any provider. The stream can also be read and resumed at ``GET /chat/stream/{id}``;
    its id is in ``X-Stream-Id``."""
    caller.need(Scope.CHAT)
    raw = read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request, options = await run_beside_loop(anthropic_request.parse, await raw, request.headers)
    submission = await submit_once(request, gateway, caller, chat_request, idempotency_key)
    renderer_of = _renderer_of(chat_request)
    del chat_request
    return await respond(
        request,
        gateway,
        caller,
        submission,
        options=options,
        renderer_of=renderer_of,
        body_of=message,
    )


@router.post(
    "/v1/messages/count_tokens",
    operation_id="count_message_tokens",
    summary="Count the tokens of a message",
    response_class=Response,
    responses=anthropic_answers("MessagesTokens"),
    openapi_extra=dialect_body("MessagesCountRequest", examples.MESSAGE_COUNT),
)
async def count_tokens(request: Request, gateway: Gateway, caller: Caller) -> Response:
    """Count the tokens of a request. A provider's count takes one request of the limits and none of their tokens. An
    estimate, for other providers, takes nothing, and the header ``X-Headrace-Estimated`` names it."""
    caller.need(Scope.CHAT)
    body = await read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request, options = await run_beside_loop(anthropic_request.parse, body, request.headers, only_count=True)
    estimate = await estimated_tokens(gateway, caller, chat_request)
    if estimate is not None:
        return JSONResponse({"input_tokens": estimate}, headers=ESTIMATED)
    return await respond(
        request,
        gateway,
        caller,
        await submit_once(request, gateway, caller, chat_request, key=None),
        options=replace(options, stream=False),
        renderer_of=_renderer_of(chat_request),
        body_of=token_count,
    )


def _renderer_of(chat_request: ChatRequest) -> Callable[[str], MessageEvents]:
    return partial(MessageEvents, prompt_tokens=Estimate(chat_request.prompt_characters, 0).prompt_tokens)
