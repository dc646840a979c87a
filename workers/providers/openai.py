"""OpenAI, and every server that speaks its Chat Completions."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import TYPE_CHECKING, Final, cast

import httpx2
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError, omit

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, Offer, ReasoningDelta, TextDelta
from workers.providers.errors import Upstream, host_of
from workers.providers.exchange import (
    NO_KEY,
    POOL_TIMEOUT_S,
    SPARE_CONNECTIONS,
    TROUBLE,
    Exchange,
    offer,
    text_of,
)

if TYPE_CHECKING:
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
CATCH: Final = (OpenAIError, httpx2.HTTPError, *TROUBLE)

#: A word not listed here, from whatever server, still means that the answer is complete: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIProvider:
    """Needs ``openai_api_key``, ``openai_base_url`` or both."""

    name = "openai"

    def __init__(self, settings: Settings) -> None:
        base_url = settings.openai_base_url or DEFAULT_BASE_URL
        key = settings.openai_api_key
        self._upstream = Upstream(self.name, host_of(base_url), "OPENAI_API_KEY", "OPENAI_BASE_URL")
        self._models = settings.openai_models
        # OpenAI's reasoning models refuse `max_tokens`; other servers know only that and may ignore, silently, the
        # newer `max_completion_tokens`.
        self._newer_limit = base_url.rstrip("/") == DEFAULT_BASE_URL
        self._client = AsyncOpenAI(
            api_key=key.get_secret_value() if key else NO_KEY,
            base_url=base_url,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(
                    settings.provider_read_timeout_s,
                    connect=settings.provider_connect_timeout_s,
                    pool=POOL_TIMEOUT_S,
                ),
                limits=httpx2.Limits(
                    max_connections=settings.concurrency + SPARE_CONNECTIONS,
                    max_keepalive_connections=settings.concurrency,
                ),
            ),
        )

    async def offer(self) -> Offer:
        return await offer(self._models, self._ask, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        limit = omit if request.max_tokens is None else request.max_tokens
        with Exchange(self._upstream, request.model, CATCH) as exchange:
            response = await self._client.chat.completions.create(
                model=request.model,
                messages=cast("list[ChatCompletionMessageParam]", messages),
                temperature=omit if request.temperature is None else request.temperature,
                max_completion_tokens=limit if self._newer_limit else omit,
                max_tokens=omit if self._newer_limit else limit,
                stop=request.stop or omit,
                stream=True,
                stream_options={"include_usage": True},
            )
            exchange.started = True
            reason: FinishReason | None = None
            usage: Usage | None = None
            # Closing the response is what closes the connection; leaving the loop alone does not.
            async with response:
                async for chunk in response:
                    for delta in _deltas(chunk):
                        yield delta
                    # Usage comes in a chunk after the reason, or in the same one, or never: so the end is awaited.
                    reason = _finish_reason(chunk) or reason
                    usage = _usage(chunk.usage) or usage
                    if reason is not None:
                        exchange.finished = Finished(reason, usage)
        if exchange.finished is not None:
            yield exchange.finished

    async def aclose(self) -> None:
        await self._client.close()

    async def _ask(self) -> list[str]:
        page = await self._client.models.list()
        return [model.id for model in page.data]


def _deltas(chunk: "ChatCompletionChunk") -> Iterator[Delta]:
    for choice in chunk.choices or ():
        delta = choice.delta
        if delta is None:
            continue
        # No official field: DeepSeek and its followers use the first name, vLLM and OpenRouter the second.
        reasoning = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
        if thinking := text_of(reasoning):
            yield ReasoningDelta(thinking)
        if text := text_of(delta.content) or text_of(delta.refusal):
            yield TextDelta(text)


def _finish_reason(chunk: "ChatCompletionChunk") -> FinishReason | None:
    reasons = [choice.finish_reason for choice in chunk.choices or () if choice.finish_reason]
    return _FINISH.get(reasons[0], "stop") if reasons else None


def _usage(usage: "CompletionUsage | None") -> Usage | None:
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
