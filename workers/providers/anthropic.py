"""Anthropic's Messages API, and servers with a compatible API."""

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, Final

import aiohttp
import httpx2
from anthropic import AnthropicError, AsyncAnthropic, AsyncStream, DefaultAioHttpClient, Omit

from shared.broker.ending import COUNTED
from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.schemas.chat import original_for
from workers.providers.anthropic_original import tools_of_original
from workers.providers.anthropic_reader import MessageReader
from workers.providers.anthropic_request import answers_by_tool, body_of, headers_of, ignored_by
from workers.providers.base import AnswerPart, Finished, ModelList, Sink
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
from workers.providers.posts import Posts, posts_of
from workers.providers.reading import deltas_of
from workers.providers.refused_fields import ANTHROPIC_FIELDS, AdaptedRequest, Body, RefusedFields
from workers.providers.substitutes import anthropic_tool_names
from workers.providers.tool_calls import ToolCalls, offered_tools
from workers.providers.usage_counts import FirstDeltas, UsageCounts, member

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
CATCH: Final = (AnthropicError, httpx2.HTTPError, aiohttp.ClientError, RefusedError, StreamedError, *NETWORK_ERRORS)

#: The largest page of models that the API returns.
MODELS_PAGE: Final = 1000

#: Fields of a request that the token counting endpoint accepts.
_COUNTED_FIELDS: Final = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
)


class AnthropicProvider:
    """A provider of kind ``anthropic``."""

    family = "anthropic"
    counts_tokens = True
    _catch = CATCH

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._client = self._made_client(endpoint)
        self._posts = self._made_posts(endpoint)
        self._upstream = endpoint.upstream(str(self._client.base_url))
        self._refused = RefusedFields(self._upstream, ANTHROPIC_FIELDS)
        self._models = endpoint.entry.models

    def _made_client(self, endpoint: Endpoint) -> AsyncAnthropic:
        return AsyncAnthropic(
            base_url=endpoint.entry.base_url or DEFAULT_BASE_URL,
            api_key=NO_KEY,
            # Otherwise three environment variables decide whether prompts appear in traces.
            open_telemetry=False,
            **sdk_options(endpoint, DefaultAioHttpClient),
        )

    def _made_posts(self, endpoint: Endpoint) -> Posts:
        return posts_of(endpoint, self._client, AsyncStream)

    async def list_models(self) -> ModelList:
        return await list_models(self._models, self._upstream, self._fetch_models, CATCH)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return await probe_models(self._upstream, partial(self._fetch_models, key), CATCH)

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        timeouts = self._endpoint.timeouts(request.model)
        names = anthropic_tool_names()
        original = original_for(request, self.family)
        headers = {**headers_of(request), **self._headers(key)}
        adapted = AdaptedRequest(request, self._refused, partial(body_of, names=names), ignored_by(request))
        for call in calls_of(self._upstream, adapted, self._catch):
            with call:
                if request.only_count:
                    call.finished = await self._count(adapted.body, headers, is_whole=original is not None)
                    call.start()
                    break
                async with self._posts.post("/v1/messages", adapted.body, headers, timeouts) as body:
                    if ignored := call.start():
                        yield ignored
                    calls = ToolCalls(self.name, {**tools_of_original(original), **offered_tools(request)})
                    by_tool = answers_by_tool(request)
                    reader = MessageReader(call, calls, by_tool=by_tool, name_of=names.original)
                    async for deltas in deltas_of(body, EventCutter(), reader, timeouts.grace_s, sink):
                        if not call.has_output:
                            call.has_output = True
                            deltas = FirstDeltas(deltas, reader.input_counts)  # noqa: PLW2901
                        yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._posts.aclose()
        await self._client.close()

    def _headers(self, key: ApiKey | None) -> dict[str, Any]:
        """Return the headers with a key, or with the first one, instead of the client's own."""
        credentials = self._endpoint.credentials(key)
        return {"X-Api-Key": Omit(), **credentials} if credentials else {}

    async def _count(self, whole: Body, headers: Mapping[str, Any], *, is_whole: bool) -> Finished:
        """Count the tokens of a request. ``is_whole``: the body is the client's own, for this very endpoint."""
        body = whole if is_whole else {name: value for name, value in whole.items() if name in _COUNTED_FIELDS}
        response = await self._client.post(
            "/v1/messages/count_tokens",
            body=body,
            cast_to=object,
            options={"headers": headers},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        async with response:
            counts = UsageCounts()
            counts.note(input=member(await read_json(response.response.aiter_bytes()), "input_tokens"))
        if counts.input is None:
            raise ValueError("no count")
        return Finished("stop", Usage(input_tokens=counts.input, output_tokens=0), COUNTED)

    async def _fetch_models(self, key: ApiKey | None = None) -> dict[str, int]:
        # Not `models.list`: it would read a body of any size.
        response = await self._client.get(
            "/v1/models",
            cast_to=object,
            options={"params": {"limit": MODELS_PAGE}, "headers": self._headers(key)},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        async with response:
            return dated_models(await read_json(response.response.aiter_bytes()))
