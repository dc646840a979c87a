"""``POST /v1/chat/completions``, for OpenAI's SDKs and all that speak like them."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gateway.api.asking import headers_of, page_of
from gateway.api.body import read_body
from gateway.api.held import ask_once, first_chunk, prepended, whole_answer
from gateway.api.parameters import IdempotencyKey
from gateway.auth.principal import Scope
from gateway.auth.rights import Right
from gateway.dialects import openai_chat_request
from gateway.dialects.failures import AnswerFailed
from gateway.dialects.openai_chat import ChatCompletionChunks, completion
from gateway.sse import StreamResponse
from gateway.state import Caller, Gateway
from gateway.subscription import Subscription
from shared.protocol.ids import START

router = APIRouter()


@router.post("/v1/chat/completions", response_class=Response)
async def complete(
    request: Request, gateway: Gateway, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Chat Completions as OpenAI has them, from any provider. The stream can also be read, and gone on with, at
    ``GET /chat/stream/{id}``: its id is in ``X-Stream-Id``."""
    caller.need(Scope.CHAT)
    asked, wish = openai_chat_request.parse(await read_body(request, gateway.settings.max_body_bytes))
    right = Right.of(caller)
    dispatched = await ask_once(request, gateway, caller, asked, idempotency_key)
    headers = headers_of(dispatched) | {"X-Request-Id": dispatched.stream_id}
    if wish.ignored:
        headers["X-Headrace-Ignored"] = ", ".join(wish.ignored)
    if not wish.stream:
        answer = await whole_answer(request, gateway, right, dispatched)
        return JSONResponse(completion(dispatched.stream_id, answer), headers=headers)
    page = await page_of(gateway, right, dispatched, START)
    renderer = ChatCompletionChunks(dispatched.stream_id, include_usage=wish.include_usage)
    chunks = Subscription(gateway.hub, dispatched.stream_id, START, page, renderer, dispatched.place).chunks()
    first = await first_chunk(request, chunks)
    if renderer.failure is not None:
        await chunks.aclose()
        raise AnswerFailed(renderer.failure)
    return StreamResponse(prepended(first, chunks), gateway.settings, gateway.rights.watch(right), headers)
