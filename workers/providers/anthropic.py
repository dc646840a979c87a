"""Anthropic's Messages API, and servers with a compatible API."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Final

import httpx2
import msgspec
from anthropic import AnthropicError, AsyncAnthropic, AsyncStream, DefaultAioHttpClient
from anthropic.types import MessageTokensCount

from shared.broker.ending import COUNTED
from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.anthropic_request import answers_by_tool, body_of
from workers.providers.base import Delta, Finished, FinishReason, ModelList, ReasoningDelta, TextDelta
from workers.providers.errors import StreamedError, Upstream, host_of
from workers.providers.framing import data_of, decode, deltas_of
from workers.providers.http_calls import (
    NETWORK_ERRORS,
    ProviderCall,
    check_type,
    list_models,
    sdk_options,
    timeout_of,
)
from workers.providers.tool_calls import ToolCalls

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
CATCH: Final = (AnthropicError, httpx2.HTTPError, StreamedError, *NETWORK_ERRORS)

#: The largest page of models that the API returns.
MODELS_PAGE: Final = 1000

#: Any other stop reason still means a complete answer: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
#: Fields of a request that the token counting endpoint accepts.
_COUNTED_FIELDS: Final = frozenset(
    {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
)


class AnthropicProvider:
    """Provider ``anthropic``. Requires ``anthropic_api_key``, ``anthropic_base_url`` or both."""

    name = "anthropic"
    counts_tokens = True

    def __init__(self, settings: Settings) -> None:
        base_url = settings.anthropic_base_url or DEFAULT_BASE_URL
        self._upstream = Upstream(self.name, host_of(base_url), "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
        self._models = settings.anthropic_models
        self._settings = settings
        options = sdk_options(settings, self.name, settings.anthropic_api_key, DefaultAioHttpClient)
        # Otherwise three environment variables decide whether prompts appear in traces.
        self._client = AsyncAnthropic(base_url=base_url, open_telemetry=False, **options)

    async def list_models(self) -> ModelList:
        return await list_models(self._models, self._fetch_models, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        with ProviderCall(self._upstream, request.model, CATCH) as call:
            if request.only_count:
                call.finished = await self._count(request)
                yield call.finished
                return
            # Not `messages.create`: its models cost more than everything else on the hot path, see openai.py.
            response = await self._client.post(
                "/v1/messages",
                body=body_of(request),
                cast_to=object,
                options={"timeout": timeout_of(self._settings.timeouts(self.name, request.model))},
                stream=True,
                stream_cls=AsyncStream[object],
            )
            call.started = True
            # Leaving the loop does not close the connection; closing the response does.
            async with response:
                check_type(response.response.headers)
                answer = _Answer(call, ToolCalls(self.name), by_tool=answers_by_tool(request))
                async for deltas in deltas_of(response.response.aiter_bytes(), data_of, answer):
                    yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._client.close()

    async def _count(self, request: ChatRequest) -> Finished:
        body = {name: value for name, value in body_of(request).items() if name in _COUNTED_FIELDS}
        counted = await self._client.post("/v1/messages/count_tokens", body=body, cast_to=MessageTokensCount)
        return Finished("stop", Usage(input_tokens=counted.input_tokens, output_tokens=0), COUNTED)

    async def _fetch_models(self) -> list[str]:
        page = await self._client.models.list(limit=MODELS_PAGE)
        return [model.id for model in page.data]


class _Answer:
    """Parser of one answer's events. Unknown types are ignored, as Anthropic requires of clients. ``by_tool``: the
    input of the only tool is the answer's text."""

    def __init__(self, call: ProviderCall, tool_calls: ToolCalls, *, by_tool: bool) -> None:
        self.is_whole = False
        self._call = call
        self._tool_calls = tool_calls
        self._by_tool = by_tool
        self._empty_input = False
        self._reason: FinishReason = "stop"
        self._detail: str | None = None
        self._input: int | None = None
        self._output: int | None = None

    def take(self, data: bytes) -> Iterator[Delta]:
        event = decode(_decoder, data)
        match event.type:
            case "content_block_delta" if event.delta is not None:
                yield from self._deltas(event.index, event.delta)
            case "content_block_start" if event.content_block is not None:
                yield from self._begin(event.index, event.content_block)
            case "content_block_stop" if self._empty_input:
                self._empty_input = False
                yield TextDelta("{}")  # no delta is sent for an empty input
            case "content_block_stop":
                yield from self._tool_calls.complete(event.index)
            case "message_start" if event.message is not None and event.message.usage is not None:
                self._input = event.message.usage.input_tokens
            case "message_delta":
                self._note_end(event)
            case "message_stop":
                self.is_whole = True
                yield from self._tool_calls.finish(self._reason)
                self._call.finished = Finished(self._tool_calls.reason(self._reason), self._usage, self._detail)
            case "error":
                error = event.error or _Error()
                raise StreamedError(None, error.type, message=error.message)

    def _begin(self, index: int, block: "_Block") -> Iterator[Delta]:
        self._empty_input = self._by_tool and block.type == "tool_use"
        if block.type == "tool_use" and not self._by_tool:
            yield from self._tool_calls.fragment(index, id=block.id, name=block.name, arguments="")
        elif block.type == "text" and block.text:
            yield TextDelta(block.text)

    def _deltas(self, index: int, delta: "_Delta") -> Iterator[Delta]:
        if delta.type == "text_delta" and delta.text:
            yield TextDelta(delta.text)
        elif delta.type == "thinking_delta" and delta.thinking:
            yield ReasoningDelta(delta.thinking)
        elif delta.type == "input_json_delta" and delta.partial_json:
            self._empty_input = False
            if self._by_tool:
                yield TextDelta(delta.partial_json)
            else:
                yield from self._tool_calls.fragment(index, id=None, name=None, arguments=delta.partial_json)

    def _note_end(self, event: "_Event") -> None:
        if event.delta is not None:
            reason = event.delta.stop_reason or ""
            self._reason = "stop" if reason == "tool_use" and self._by_tool else _FINISH.get(reason, "stop")
            self._detail = "refusal" if reason == "refusal" else None
        if event.usage is not None:
            # Cumulative, so it replaces the counts of message_start.
            self._input = self._input if event.usage.input_tokens is None else event.usage.input_tokens
            self._output = event.usage.output_tokens

    @property
    def _usage(self) -> Usage | None:
        if self._input is None or self._output is None:
            return None
        return Usage(input_tokens=self._input, output_tokens=self._output)


class _Block(msgspec.Struct):
    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Counts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(msgspec.Struct):
    usage: _Counts | None = None


class _Error(msgspec.Struct):
    type: object = None
    message: object = None


class _Event(msgspec.Struct):
    type: str
    index: int = 0
    content_block: _Block | None = None
    delta: _Delta | None = None
    message: _Message | None = None
    usage: _Counts | None = None
    error: _Error | None = None


_decoder: Final = msgspec.json.Decoder(_Event)
