"""The two APIs of one OpenAI server: Responses for the models of a list, Chat Completions for all others."""

import dataclasses
from collections.abc import AsyncGenerator
from typing import Final

from shared.model_patterns import matches_any
from shared.openai_address import is_openai
from shared.schemas import ChatRequest
from workers.providers.base import AnswerPart, ModelList, Provider, ProviderCursor, Sink
from workers.providers.endpoint import ApiKey, Endpoint
from workers.providers.openai import DEFAULT_BASE_URL, OpenAIProvider
from workers.providers.openai_responses import ResponsesProvider

#: Models of OpenAI that have no other API than Responses.
ONLY_RESPONSES: Final = (
    *("*-pro", "*-pro-20*", "*codex*", "*-deep-research", "*-deep-research-20*", "computer-use-*"),
)


def openai_provider(endpoint: Endpoint) -> Provider:
    """Return the adapter of a provider of kind ``openai``."""
    patterns = responses_models(endpoint)
    return BothAPIs(endpoint, patterns) if patterns else OpenAIProvider(endpoint)


def responses_models(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the configured patterns. The default is that of OpenAI itself: other servers may lack Responses."""
    if endpoint.entry.responses_models is not None:
        return endpoint.entry.responses_models
    return ONLY_RESPONSES if is_openai(endpoint.entry.base_url or DEFAULT_BASE_URL) else ()


class BothAPIs:
    """A provider of kind ``openai`` whose server has both APIs. ``patterns``: of the models asked by Responses."""

    family = OpenAIProvider.family
    counts_tokens = False

    def __init__(self, endpoint: Endpoint, patterns: tuple[str, ...]) -> None:
        self.name = endpoint.name
        self._patterns = patterns
        self._chat = OpenAIProvider(endpoint)
        self._responses = ResponsesProvider(endpoint)

    async def list_models(self) -> ModelList:
        return dataclasses.replace(await self._chat.list_models(), responses=self._patterns)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return await self._chat.probe(key)

    def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        provider = self._responses if self._is_asked_by_responses(request) else self._chat
        return provider.stream(request, key, sink)

    def stores(self, request: ChatRequest) -> bool:
        return self._is_asked_by_responses(request) and self._responses.stores(request)

    def resume(
        self, request: ChatRequest, key: ApiKey | None, cursor: ProviderCursor, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        return self._responses.resume(request, key, cursor, sink)

    async def cancel(self, response_id: str, key: ApiKey | None) -> None:
        await self._responses.cancel(response_id, key)

    async def aclose(self) -> None:
        await self._chat.aclose()
        await self._responses.aclose()

    def _is_asked_by_responses(self, request: ChatRequest) -> bool:
        return matches_any(request.model, self._patterns)
