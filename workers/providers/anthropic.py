"""Anthropic's Messages API, and servers that speak it."""

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Final, cast

import httpx2
from anthropic import AnthropicError, AsyncAnthropic, DefaultAsyncHttpxClient, omit

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
    from anthropic.types import MessageParam, RawMessageStreamEvent

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
CATCH: Final = (AnthropicError, httpx2.HTTPError, *TROUBLE)

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
            http_client=DefaultAsyncHttpxClient(
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=settings.concurrency + SPARE_CONNECTIONS,
                    max_keepalive_connections=settings.concurrency,
                ),
            ),
        )

    async def offer(self) -> Offer:
        return await offer(self._models, self._ask, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        system = [m.content for m in request.messages if m.role == "system"]
        turns = [{"role": m.role, "content": m.content} for m in request.messages if m.role != "system"]
        with Exchange(self._upstream, request.model, CATCH) as exchange:
            response = await self._client.messages.create(
                model=request.model,
                messages=cast("list[MessageParam]", turns),
                system="\n\n".join(system) or omit,
                max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
                stop_sequences=request.stop or omit,
                # The SDK has no parameter for it any more; models that still take it do so here.
                extra_body=None if request.temperature is None else {"temperature": request.temperature},
                stream=True,
            )
            exchange.started = True
            ending = _Ending()
            # Closing the response is what closes the connection; leaving the loop alone does not.
            async with response:
                async for event in response:
                    if event.type == "content_block_delta":
                        if event.delta.type == "text_delta" and (text := text_of(event.delta.text)):
                            yield TextDelta(text)
                        elif event.delta.type == "thinking_delta" and (text := text_of(event.delta.thinking)):
                            yield ReasoningDelta(text)
                    elif event.type == "message_stop":
                        exchange.finished = ending.finished()
                    else:
                        ending.take(event)
        if exchange.finished is not None:
            yield exchange.finished

    async def aclose(self) -> None:
        await self._client.close()

    async def _ask(self) -> list[str]:
        page = await self._client.models.list(limit=MODELS_PAGE)
        return [model.id for model in page.data]


class _Ending:
    """What ``message_start`` and ``message_delta`` say, for when ``message_stop`` comes."""

    def __init__(self) -> None:
        self._reason: FinishReason = "stop"
        self._input: int | None = None
        self._output: int | None = None

    def take(self, event: "RawMessageStreamEvent") -> None:
        if event.type == "message_start" and event.message.usage is not None:
            self._input = event.message.usage.input_tokens
        elif event.type == "message_delta":
            self._reason = _FINISH.get(event.delta.stop_reason or "", "stop")
            if event.usage is not None:
                # Cumulative, so it replaces what the start said.
                self._input = self._input if event.usage.input_tokens is None else event.usage.input_tokens
                self._output = event.usage.output_tokens

    def finished(self) -> Finished:
        if self._input is None or self._output is None:
            return Finished(self._reason, None)
        return Finished(self._reason, Usage(input_tokens=self._input, output_tokens=self._output))
