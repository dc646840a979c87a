"""``POST /v1/messages``, for Anthropic's SDKs."""

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from gateway.api.body import read_body
from gateway.api.deferred import respond
from gateway.api.parameters import IdempotencyKey
from gateway.dialects.anthropic import request as anthropic_request
from gateway.dialects.anthropic.stream import MessageEvents, counted, message
from gateway.state import Caller, Gateway

router = APIRouter()


# Described by Anthropic, not here.
@router.post("/v1/messages", response_class=Response, include_in_schema=False)
async def create(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Messages as Anthropic has them, from any provider. The stream can also be read, and gone on with, at
    ``GET /chat/stream/{id}``: its id is in ``X-Stream-Id``."""
    asked, wish = anthropic_request.parse(await read_body(request, gateway.settings.max_body_bytes))
    return await respond(request, gateway, caller, asked, wish, idempotency_key, MessageEvents, message)


@router.post("/v1/messages/count_tokens", response_class=Response, include_in_schema=False)
async def count_tokens(request: Request, gateway: Gateway, caller: Caller) -> Response:
    """Of a model of Anthropic's; of others nobody can say. It costs no tokens, and is a request like others."""
    body = await read_body(request, gateway.settings.max_body_bytes)
    asked, wish = anthropic_request.parse(body, only_count=True)
    return await respond(request, gateway, caller, asked, replace(wish, stream=False), None, MessageEvents, counted)
