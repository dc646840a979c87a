"""Route ``POST /v1/chat/completions``, for OpenAI's SDKs and compatible clients."""

from functools import partial

from fastapi import APIRouter, Request, Response

from gateway.api import examples
from gateway.api.body import read_body
from gateway.api.deferred import respond, submit_once
from gateway.api.descriptions import OPENAI, dialect_body, openai_answers
from gateway.api.live_route import LiveRoute
from gateway.api.parameters import IdempotencyKey
from gateway.dialects.openai_chat import request as openai_chat_request
from gateway.dialects.openai_chat.stream import ChatCompletionChunks, completion
from gateway.intake.body_memory import run_beside_loop
from gateway.state import Caller, Gateway
from shared.scopes import Scope

router = APIRouter(route_class=LiveRoute, tags=[OPENAI])


@router.post(
    "/v1/chat/completions",
    operation_id="create_chat_completion",
    summary="Create a chat completion",
    response_class=Response,
    responses=openai_answers("ChatCompletion", "With `stream: true`: chunks of OpenAI's format, then `[DONE]`."),
    openapi_extra=dialect_body("ChatCompletionRequest", examples.COMPLETION),
)
async def complete(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """OpenAI's Chat Completions, from any provider. The stream can also be read and resumed at
    ``GET /chat/stream/{id}``; its id is in ``X-Stream-Id``."""
    caller.need(Scope.CHAT)
    raw = read_body(request, caller, gateway.settings.max_body_bytes)
    chat_request, options = await run_beside_loop(openai_chat_request.parse, await raw)
    submission = await submit_once(request, gateway, caller, chat_request, idempotency_key)
    del chat_request
    return await respond(
        request,
        gateway,
        caller,
        submission,
        options=options,
        renderer_of=partial(ChatCompletionChunks, include_usage=options.include_usage),
        body_of=completion,
    )
