"""Anthropic's Messages API, and servers that speak it."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Final

import httpx2
import msgspec
from anthropic import AnthropicError, AsyncAnthropic, AsyncStream, DefaultAioHttpClient

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, Offer, ReasoningDelta, TextDelta
from workers.providers.errors import StreamedError, Upstream, host_of
from workers.providers.exchange import (
    NO_KEY,
    POOL_TIMEOUT_S,
    SPARE_CONNECTIONS,
    TROUBLE,
    Exchange,
    offer,
)
from workers.providers.sse import decode, deltas_of

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
CATCH: Final = (AnthropicError, httpx2.HTTPError, StreamedError, *TROUBLE)

#: The API demands a limit. This one is within every model's own, and enough for most chat answers.
DEFAULT_MAX_TOKENS: Final = 4096
#: The largest page that the list of models comes in.
MODELS_PAGE: Final = 1000

#: A word not listed here still means that the answer is complete: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicProvider:
    """Needs ``anthropic_api_key``, ``anthropic_base_url`` or both."""

    name = "anthropic"

    def __init__(self, settings: Settings) -> None:
        base_url = settings.anthropic_base_url or DEFAULT_BASE_URL
        key = settings.anthropic_api_key
        self._upstream = Upstream(self.name, host_of(base_url), "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
        self._models = settings.anthropic_models
        timeout = httpx2.Timeout(
            settings.provider_read_timeout_s,
            connect=settings.provider_connect_timeout_s,
            pool=POOL_TIMEOUT_S,
        )
        self._client = AsyncAnthropic(
            # Given twice: where the HTTP client's equals its own default, the SDK takes 600 s of its own instead.
            timeout=timeout,
            api_key=key.get_secret_value() if key else NO_KEY,
            base_url=base_url,
            max_retries=0,
            # Else three environment variables decide whether prompts go into traces.
            open_telemetry=False,
            http_client=DefaultAioHttpClient(
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=settings.concurrency + SPARE_CONNECTIONS,
                    max_keepalive_connections=settings.concurrency,
                ),
            ),
        )

    async def offer(self) -> Offer:
        return await offer(self._models, self._ask, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        with Exchange(self._upstream, request.model, CATCH) as exchange:
            # Not `messages.create`, whose models cost more than all the rest of the way, see openai.py.
            response = await self._client.post(
                "/v1/messages",
                body=_body(request),
                cast_to=object,
                stream=True,
                stream_cls=AsyncStream[object],
            )
            exchange.started = True
            # Closing the response is what closes the connection; leaving the loop alone does not.
            async with response:
                async for deltas in deltas_of(response.response, _Answer(exchange)):
                    yield deltas
        if exchange.finished is not None:
            yield exchange.finished

    async def aclose(self) -> None:
        await self._client.close()

    async def _ask(self) -> list[str]:
        page = await self._client.models.list(limit=MODELS_PAGE)
        return [model.id for model in page.data]


def _body(request: ChatRequest) -> dict[str, object]:
    asked = {
        "system": "\n\n".join(m.content for m in request.messages if m.role == "system") or None,
        "stop_sequences": request.stop or None,
        "temperature": request.temperature,
    }
    return {
        "model": request.model,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages if m.role != "system"],
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "stream": True,
        **{name: value for name, value in asked.items() if value is not None},
    }


class _Answer:
    """One answer's events, by their ``type``; unknown ones are passed over, as Anthropic asks its clients to."""

    def __init__(self, exchange: Exchange) -> None:
        self.is_whole = False
        self._exchange = exchange
        self._reason: FinishReason = "stop"
        self._input: int | None = None
        self._output: int | None = None

    def take(self, data: bytes) -> Iterator[Delta]:
        event = decode(_decoder, data)
        match event.type:
            case "content_block_delta" if event.delta is not None:
                yield from _deltas(event.delta)
            case "message_start" if event.message is not None and event.message.usage is not None:
                self._input = event.message.usage.input_tokens
            case "message_delta":
                if event.delta is not None:
                    self._reason = _FINISH.get(event.delta.stop_reason or "", "stop")
                if event.usage is not None:
                    # Cumulative, so it replaces what the start said.
                    self._input = self._input if event.usage.input_tokens is None else event.usage.input_tokens
                    self._output = event.usage.output_tokens
            case "message_stop":
                self.is_whole = True
                self._exchange.finished = Finished(self._reason, self._usage)
            case "error":
                raise StreamedError(None, event.error.type if event.error else None)

    @property
    def _usage(self) -> Usage | None:
        if self._input is None or self._output is None:
            return None
        return Usage(input_tokens=self._input, output_tokens=self._output)


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    stop_reason: str | None = None


class _Counts(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(msgspec.Struct):
    usage: _Counts | None = None


class _Error(msgspec.Struct):
    type: object = None


class _Event(msgspec.Struct):
    type: str
    delta: _Delta | None = None
    message: _Message | None = None
    usage: _Counts | None = None
    error: _Error | None = None


_decoder: Final = msgspec.json.Decoder(_Event)


def _deltas(delta: _Delta) -> Iterator[Delta]:
    if delta.type == "text_delta" and delta.text:
        yield TextDelta(delta.text)
    elif delta.type == "thinking_delta" and delta.thinking:
        yield ReasoningDelta(delta.thinking)
