"""OpenAI, and every server with a compatible Chat Completions API."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Final

import httpx2
import msgspec
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, OpenAIError

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, ModelList, ReasoningDelta, RefusalDelta, TextDelta
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

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
CATCH: Final = (OpenAIError, httpx2.HTTPError, StreamedError, *NETWORK_ERRORS)

#: Any other finish reason, from any server, still means a complete answer: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",
}
#: Finish reasons of DeepSeek, vLLM and SGLang for answers that they aborted.
_BROKEN_OFF: Final = frozenset({"insufficient_system_resource", "abort", "error"})
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
        with ProviderCall(self._upstream, request.model, CATCH) as call:
            # `chat.completions.create` builds its models in 80 µs a chunk, more than everything else between provider
            # and reader. This is the same request, but framing.py reads the chunks.
            response = await self._client.post(
                "/chat/completions",
                body=self._body(request),
                cast_to=object,
                options={"timeout": timeout_of(self._settings.timeouts(self.name, request.model))},
                stream=True,
                stream_cls=AsyncStream[object],
            )
            call.started = True
            # Leaving the loop does not close the connection; closing the response does.
            async with response:
                check_type(response.response.headers)
                async for deltas in deltas_of(
                    response.response.aiter_bytes(), data_of, _Answer(call, ToolCalls(self.name))
                ):
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


class _Answer:
    """Parser of one answer's chunks. Usage may follow the finish reason, come with it or be missing, so the parser
    reads to the end."""

    def __init__(self, call: ProviderCall, tool_calls: ToolCalls) -> None:
        self.is_whole = False
        self._call = call
        self._tool_calls = tool_calls
        self._reason: FinishReason | None = None
        self._detail: str | None = None
        self._usage: Usage | None = None

    def take(self, data: bytes) -> Iterator[Delta]:
        if data == b"[DONE]":
            self.is_whole = True
            return
        chunk = decode(_decoder, data)
        if chunk.error:
            error = chunk.error if isinstance(chunk.error, _Error) else _Error()
            raise StreamedError(error.code, error.type, param=error.param, message=error.message)
        for choice in chunk.choices or ():
            if choice.delta is not None:
                yield from self._deltas(choice.delta)
            if choice.finish_reason in _BROKEN_OFF:
                raise StreamedError(None, None)
            if choice.finish_reason:
                reason = _FINISH.get(choice.finish_reason, "stop")
                yield from self._tool_calls.finish(reason)
                self._reason = "content_filter" if self._detail else self._tool_calls.reason(reason)
        self._usage = _usage(chunk) or self._usage
        if self._reason is not None:
            self._call.finished = Finished(self._reason, self._usage, self._detail)
            self.is_whole = self._usage is not None  # some servers omit `[DONE]` and keep the connection open

    def _deltas(self, delta: "_Delta") -> Iterator[Delta]:
        if thinking := delta.reasoning_content or delta.reasoning:
            yield ReasoningDelta(thinking)
        if delta.content:
            yield TextDelta(delta.content)
        if delta.refusal:
            self._detail = "refusal"
            yield RefusalDelta(delta.refusal)
        for position, tool_call in enumerate(delta.tool_calls or ()):
            function = tool_call.function or _Function()
            # Some servers send no index: the position then identifies the call.
            key = position if tool_call.index is None else tool_call.index
            yield from self._tool_calls.fragment(
                key, id=tool_call.id, name=function.name, arguments=function.arguments or ""
            )


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    # Not in OpenAI's API: DeepSeek and compatible servers use the first name, vLLM and OpenRouter the second.
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Counts(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Error(msgspec.Struct):
    code: object = None
    type: object = None
    param: object = None
    message: object = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Counts | None = None
    error: _Error | str | None = None


_decoder: Final = msgspec.json.Decoder(_Chunk)


def _usage(chunk: _Chunk) -> Usage | None:
    counts = chunk.usage
    if counts is None or counts.prompt_tokens is None or counts.completion_tokens is None:
        return None
    return Usage(input_tokens=counts.prompt_tokens, output_tokens=counts.completion_tokens)
