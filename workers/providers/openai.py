"""OpenAI, and every server with a compatible Chat Completions API."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import httpx2
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, Omit, OpenAIError

from shared.openai_address import is_openai
from shared.schemas import ChatRequest
from workers.providers.base import AnswerPart, ModelList, Sink
from workers.providers.endpoint import NO_KEY, ApiKey, Endpoint
from workers.providers.errors import RefusedError, StreamedError
from workers.providers.framing import EventCutter
from workers.providers.http_calls import (
    NETWORK_ERRORS,
    calls_of,
    dated_models,
    list_models,
    probe_models,
    read_json,
    sdk_options,
)
from workers.providers.openai_reader import ChatCompletionReader
from workers.providers.openai_repairs import OpenAINames
from workers.providers.openai_request import body_of
from workers.providers.posts import posts_of
from workers.providers.reading import deltas_of
from workers.providers.refused_fields import OPENAI_FIELDS, AdaptedRequest, RefusedFields
from workers.providers.tool_calls import ToolCalls, offered_tools

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
CATCH: Final = (OpenAIError, httpx2.HTTPError, aiohttp.ClientError, RefusedError, StreamedError, *NETWORK_ERRORS)


def limit_of(base_url: str) -> str:
    """Return the name of the token limit. OpenAI's reasoning models refuse ``max_tokens``. Other servers may support
    only that and silently ignore the newer name, so they get it after a refusal only."""
    return "max_completion_tokens" if is_openai(base_url) else "max_tokens"


class OpenAIProvider:
    """A provider of kind ``openai``."""

    family = "openai"
    counts_tokens = False

    def __init__(self, endpoint: Endpoint) -> None:
        base_url = endpoint.entry.base_url or DEFAULT_BASE_URL
        self.name = endpoint.name
        self._endpoint = endpoint
        self._upstream = endpoint.upstream(base_url)
        self._models = endpoint.entry.models
        self._refused = RefusedFields(self._upstream, OPENAI_FIELDS)
        self._quirks = endpoint.entry.quirks
        self._limit = self._quirks.token_limit or limit_of(base_url)
        self._hostname = urlsplit(base_url).hostname or ""
        self._client = AsyncOpenAI(base_url=base_url, api_key=NO_KEY, **sdk_options(endpoint, DefaultAioHttpClient))
        self._posts = posts_of(endpoint, self._client, AsyncStream)

    async def list_models(self) -> ModelList:
        return await list_models(
            self._models, self._upstream, partial(fetch_models, self._client, self._endpoint), CATCH
        )

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return await probe_models(self._upstream, partial(fetch_models, self._client, self._endpoint, key), CATCH)

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        timeouts = self._endpoint.timeouts(request.model)
        names = OpenAINames.at(self._hostname, self._quirks.tool_call_ids)
        build = partial(body_of, limit=self._limit, names=names, has_stream_options=self._quirks.stream_options)
        adapted = AdaptedRequest(request, self._refused, build)
        for call in calls_of(self._upstream, adapted, CATCH):
            with call:
                headers = headers_of(self._endpoint, key)
                async with self._posts.post("/chat/completions", adapted.body, headers, timeouts) as body:
                    if ignored := call.start():
                        yield ignored
                    reader = ChatCompletionReader(call, ToolCalls(self.name, offered_tools(request), names.tools))
                    async for deltas in deltas_of(body, EventCutter(), reader, timeouts.grace_s, sink):
                        call.has_output = True
                        yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._posts.aclose()
        await self._client.close()


def headers_of(endpoint: Endpoint, key: ApiKey | None) -> dict[str, Any]:
    """Return the headers with a key, or with the first one, instead of the SDK's own."""
    credentials = endpoint.credentials(key)
    return {"Authorization": Omit(), **credentials} if credentials else {}


async def fetch_models(client: AsyncOpenAI, endpoint: Endpoint, key: ApiKey | None = None) -> dict[str, int]:
    """Return the models of a server, with their dates."""
    # Not `models.list`: it would read a body of any size.
    response = await client.get(
        "/models",
        cast_to=object,
        options={"headers": headers_of(endpoint, key)},
        stream=True,
        stream_cls=AsyncStream[object],
    )
    async with response:
        return dated_models(await read_json(response.response.aiter_bytes()))
