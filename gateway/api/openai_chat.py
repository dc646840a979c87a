"""``POST /v1/chat/completions``, for OpenAI's SDKs and all that speak like them."""

from functools import partial

from fastapi import APIRouter, Request, Response

from gateway.api.body import read_body
from gateway.api.deferred import respond
from gateway.api.parameters import IdempotencyKey
from gateway.dialects.openai_chat import request as openai_chat_request
from gateway.dialects.openai_chat.stream import ChatCompletionChunks, completion
from gateway.state import Caller, Gateway

router = APIRouter()


# Described by OpenAI, not here.
@router.post("/v1/chat/completions", response_class=Response, include_in_schema=False)
async def complete(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Chat Completions as OpenAI has them, from any provider. The stream can also be read, and gone on with, at
    ``GET /chat/stream/{id}``: its id is in ``X-Stream-Id``."""
    asked, wish = openai_chat_request.parse(await read_body(request, gateway.settings.max_body_bytes))
    renderer = partial(ChatCompletionChunks, include_usage=wish.include_usage)
    return await respond(request, gateway, caller, asked, wish, idempotency_key, renderer, completion)
