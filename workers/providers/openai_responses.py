"""OpenAI's Responses, and every server with a compatible API."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Final

from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from shared.schemas import ChatRequest
from workers.providers.base import AnswerPart, ModelList
from workers.providers.endpoint import NO_KEY, ApiKey, Endpoint
from workers.providers.framing import data_of
from workers.providers.http_calls import calls_of, check_type, list_models, probe_models, sdk_options, timeout_of
from workers.providers.openai import CATCH, DEFAULT_BASE_URL, fetch_models, headers_of
from workers.providers.reading import deltas_of
from workers.providers.refused_fields import RESPONSES_FIELDS, AdaptedRequest, RefusedFields
from workers.providers.responses_reader import ResponsesReader
from workers.providers.responses_repairs import ResponsesNames
from workers.providers.responses_request import FAMILY, body_of
from workers.providers.tool_calls import ToolCalls, offered_tools

_PATH: Final = "/responses"


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

    async def list_models(self) -> ModelList:
        fetch = partial(fetch_models, self._client, self._endpoint)
        return await list_models(self._endpoint.entry.models, fetch, CATCH)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return await probe_models(self._upstream, partial(fetch_models, self._client, self._endpoint, key), CATCH)

    async def stream(self, request: ChatRequest, key: ApiKey | None = None) -> AsyncGenerator[AnswerPart, None]:
        timeouts = self._endpoint.timeouts(request.model)
        names = ResponsesNames()
        adapted = AdaptedRequest(request, self._refused, partial(body_of, names=names))
        for call in calls_of(self._upstream, adapted, CATCH):
            with call:
                # `responses.create` builds a model of each event; framing.py reads them for a fraction of the time.
                response = await self._client.post(
                    _PATH,
                    body=adapted.body,
                    cast_to=object,
                    options={"timeout": timeout_of(timeouts), "headers": headers_of(self._endpoint, key)},
                    stream=True,
                    stream_cls=AsyncStream[object],
                )
                # Leaving the loop does not close the connection; closing the response does.
                async with response:
                    check_type(response.response.headers)
                    if ignored := call.start():
                        yield ignored
                    calls = ToolCalls(self.name, offered_tools(request), names.tools, FAMILY)
                    reader = ResponsesReader(call, calls)
                    body = response.response.aiter_bytes()
                    async for deltas in deltas_of(body, data_of, reader, timeouts.grace_s):
                        call.has_output = True
                        yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._client.close()
