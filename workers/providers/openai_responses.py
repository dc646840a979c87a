"""OpenAI's Responses, and every server with a compatible API."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from shared.schemas import ChatRequest
from workers.providers.base import AnswerPart, IgnoredFields, ModelList, ProviderCursor, Sink
from workers.providers.endpoint import NO_KEY, ApiKey, Endpoint
from workers.providers.framing import EventCutter
from workers.providers.http_calls import ProviderCall, calls_of, list_models, probe_models, sdk_options
from workers.providers.openai import CATCH, DEFAULT_BASE_URL, fetch_models, headers_of
from workers.providers.posts import posts_of
from workers.providers.reading import deltas_of
from workers.providers.refused_fields import RESPONSES_FIELDS, AdaptedRequest, RefusedFields
from workers.providers.responses_connections import PATH, Access, StoredAnswer
from workers.providers.responses_places import Place
from workers.providers.responses_reader import ResponsesReader
from workers.providers.responses_repairs import ResponsesNames
from workers.providers.responses_request import FAMILY, body_of, forbids_storage, sent_body
from workers.providers.responses_stored import StoredReader
from workers.providers.tool_calls import ToolCalls, offered_tools


class ResponsesProvider:
    """A provider of kind ``openai-responses``."""

    family = FAMILY
    counts_tokens = False

    def __init__(self, endpoint: Endpoint) -> None:
        base_url = endpoint.entry.base_url or DEFAULT_BASE_URL
        self.name = endpoint.name
        self._endpoint = endpoint
        self._upstream = replace(endpoint.upstream(base_url), family=FAMILY)
        self._refused = RefusedFields(self._upstream, RESPONSES_FIELDS)
        self._client = AsyncOpenAI(base_url=base_url, api_key=NO_KEY, **sdk_options(endpoint, DefaultAioHttpClient))
        self._posts = posts_of(endpoint, self._client, AsyncStream)

    async def list_models(self) -> ModelList:
        fetch = partial(fetch_models, self._client, self._endpoint)
        return await list_models(self._endpoint.entry.models, self._upstream, fetch, CATCH)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return await probe_models(self._upstream, partial(fetch_models, self._client, self._endpoint, key), CATCH)

    def stores(self, request: ChatRequest) -> bool:
        return self._endpoint.entry.background and not request.only_count and not forbids_storage(request)

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        access = self._access(request, key)
        names = ResponsesNames()
        adapted = self._adapted(request, names)
        for call in calls_of(self._upstream, adapted, CATCH):
            with call:
                body = sent_body(adapted.body, request, names)
                timeouts = self._endpoint.timeouts(request.model)
                async with self._posts.post(PATH, body, headers_of(self._endpoint, key), timeouts) as events:
                    if ignored := call.start():
                        yield ignored
                    reader = self._reader(request, call, names)
                    grace_s = timeouts.grace_s
                    if "background" in body:
                        answer = StoredAnswer(access, StoredReader(reader, call, Place()), call, grace_s, sink)
                        reads = answer.deltas(events)
                    else:
                        reads = deltas_of(events, EventCutter(), reader, grace_s, sink)
                    async with aclosing(reads):
                        async for deltas in reads:
                            call.has_output = True
                            yield deltas
        if call.finished is not None:
            yield call.finished

    async def resume(
        self, request: ChatRequest, key: ApiKey | None, cursor: ProviderCursor, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        names = ResponsesNames()
        adapted = self._adapted(request, names)  # the answer has the names that its request was sent with
        call = ProviderCall(self._upstream, request.model, CATCH)
        with call:
            reader = self._reader(request, call, names)
            stored = StoredReader(reader, call, Place(cursor.response_id), until=cursor.at)
            grace_s = self._endpoint.timeouts(request.model).grace_s
            answer = StoredAnswer(self._access(request, key), stored, call, grace_s, sink)
            if cursor.at is not None:
                yield await answer.replay(cursor.at)
            elif adapted.ignored:
                yield IgnoredFields(adapted.ignored)
            if not stored.has_ended:
                async with aclosing(answer.deltas()) as reads:
                    async for deltas in reads:
                        yield deltas
        if call.finished is not None:
            yield call.finished

    async def cancel(self, response_id: str, key: ApiKey | None) -> None:
        with ProviderCall(self._upstream, "", CATCH):
            await Access(self._client, self._endpoint, key).cancel(response_id)

    async def aclose(self) -> None:
        await self._posts.aclose()
        await self._client.close()

    def _adapted(self, request: ChatRequest, names: ResponsesNames) -> AdaptedRequest:
        return AdaptedRequest(request, self._refused, partial(body_of, names=names, is_stored=self.stores(request)))

    def _access(self, request: ChatRequest, key: ApiKey | None) -> Access:
        return Access(self._client, self._endpoint, key, request.model)

    def _reader(self, request: ChatRequest, call: ProviderCall, names: ResponsesNames) -> ResponsesReader:
        return ResponsesReader(call, ToolCalls(self.name, offered_tools(request), names.tools, FAMILY))
