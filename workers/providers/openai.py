"""OpenAI, and every server with a compatible Chat Completions API."""

from collections.abc import AsyncGenerator
from typing import Final

import httpx2
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, OpenAIError

from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, ModelList
from workers.providers.errors import StreamedError, Upstream, host_of
from workers.providers.framing import data_of
from workers.providers.http_calls import (
    NETWORK_ERRORS,
    ProviderCall,
    check_type,
    list_models,
    sdk_options,
    timeout_of,
)
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.reading import deltas_of
from workers.providers.tool_calls import ToolCalls, offered_tools

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
CATCH: Final = (OpenAIError, httpx2.HTTPError, StreamedError, *NETWORK_ERRORS)

#: Fields that have the same name and meaning in the canonical request.
_UNCHANGED: Final = {
    "model",
    "messages",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "parallel_tool_calls",
    "stop",
    "tools",
    "tool_choice",
    "response_format",
    "reasoning_effort",
}


class OpenAIProvider:
    """Provider ``openai``. Requires ``openai_api_key``, ``openai_base_url`` or both."""

    name = "openai"
    counts_tokens = False

    def __init__(self, settings: Settings) -> None:
        base_url = settings.openai_base_url or DEFAULT_BASE_URL
        self._upstream = Upstream(self.name, host_of(base_url), "OPENAI_API_KEY", "OPENAI_BASE_URL")
        self._models = settings.openai_models
        # OpenAI's reasoning models refuse `max_tokens`; other servers may support only that and silently ignore the
        # newer `max_completion_tokens`.
        self._newer_limit = base_url.rstrip("/") == DEFAULT_BASE_URL
        self._settings = settings
        options = sdk_options(settings, self.name, settings.openai_api_key, DefaultAioHttpClient)
        self._client = AsyncOpenAI(base_url=base_url, **options)

    async def list_models(self) -> ModelList:
        return await list_models(self._models, self._fetch_models, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        timeouts = self._settings.timeouts(self.name, request.model)
        with ProviderCall(self._upstream, request.model, CATCH) as call:
            # `chat.completions.create` builds its models in 80 µs a chunk, more than everything else between provider
            # and reader. This is the same request, but framing.py reads the chunks.
            response = await self._client.post(
                "/chat/completions",
                body=self._body(request),
                cast_to=object,
                options={"timeout": timeout_of(timeouts)},
                stream=True,
                stream_cls=AsyncStream[object],
            )
            call.started = True
            # Leaving the loop does not close the connection; closing the response does.
            async with response:
                check_type(response.response.headers)
                reader = ChatCompletionReader(call, ToolCalls(self.name, offered_tools(request)))
                async for deltas in deltas_of(response.response.aiter_bytes(), data_of, reader, timeouts.grace_s):
                    yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._client.close()

    def _body(self, request: ChatRequest) -> dict[str, object]:
        body = request.model_dump(mode="json", include=_UNCHANGED, exclude_none=True)
        if not request.tools:
            body.pop("parallel_tool_calls", None)
        if request.max_tokens is not None:
            body["max_completion_tokens" if self._newer_limit else "max_tokens"] = request.max_tokens
        return {**body, "stream": True, "stream_options": {"include_usage": True}}

    async def _fetch_models(self) -> list[str]:
        page = await self._client.models.list()
        return [model.id for model in page.data]
