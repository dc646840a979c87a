"""Ollama's own ``/api/chat``: unlike its OpenAI-compatible door, it takes Ollama's options."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final, cast

import httpx
from ollama import AsyncClient, ChatResponse, ResponseError

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, Offer, ReasoningDelta, TextDelta
from workers.providers.errors import Upstream, host_of
from workers.providers.exchange import POOL_TIMEOUT_S, SPARE_CONNECTIONS, TROUBLE, Exchange, offer

CATCH: Final = (ResponseError, httpx.HTTPError, *TROUBLE)

#: A word not listed here still means that the answer is complete: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {"length": "length"}


class OllamaProvider:
    """Needs ``ollama_host``."""

    name = "ollama"

    def __init__(self, settings: Settings) -> None:
        host = settings.ollama_host
        if host is None:
            raise ValueError("OllamaProvider needs ollama_host")
        self._upstream = Upstream(self.name, host_of(host), "OLLAMA_API_KEY", "OLLAMA_HOST")
        self._models = settings.ollama_models
        # The SDK's own limits (100 connections, no timeout at all) let the 101st stream wait for ever.
        self._client = AsyncClient(
            host,
            timeout=httpx.Timeout(
                settings.provider_read_timeout_s,
                connect=settings.provider_connect_timeout_s,
                pool=POOL_TIMEOUT_S,
            ),
            limits=httpx.Limits(
                max_connections=settings.concurrency + SPARE_CONNECTIONS,
                max_keepalive_connections=settings.concurrency,
            ),
        )

    async def offer(self) -> Offer:
        return await offer(self._models, self._ask, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        with Exchange(self._upstream, request.model, CATCH) as exchange:
            parts = await self._client.chat(
                model=request.model,
                messages=[{"role": m.role, "content": m.content} for m in request.messages],
                options=_options(request),
                stream=True,
            )
            # The request is sent by the first step of this generator, and only closing it closes the connection.
            async with aclosing(cast("AsyncGenerator[ChatResponse, None]", parts)) as closing_parts:
                async for part in closing_parts:
                    exchange.started = True
                    if part.message.thinking:
                        yield [ReasoningDelta(part.message.thinking)]
                    if part.message.content:
                        yield [TextDelta(part.message.content)]
                    if part.done:
                        exchange.finished = _finished(part)
        if exchange.finished is not None:
            yield exchange.finished

    async def aclose(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]  # the SDK left it so

    async def _ask(self) -> list[str]:
        return [model.model for model in (await self._client.list()).models if model.model]


def _options(request: ChatRequest) -> dict[str, object]:
    asked = {"temperature": request.temperature, "num_predict": request.max_tokens, "stop": request.stop}
    return {name: value for name, value in asked.items() if value is not None}


def _finished(part: ChatResponse) -> Finished:
    reason = _FINISH.get(part.done_reason or "", "stop")
    if part.eval_count is None:
        return Finished(reason, None)
    # Ollama leaves the prompt's count out when all of the prompt was in its cache.
    return Finished(reason, Usage(input_tokens=part.prompt_eval_count or 0, output_tokens=part.eval_count))
