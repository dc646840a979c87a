"""Ollama's own ``/api/chat``: unlike its OpenAI-compatible door, it takes Ollama's options.

Spoken to without its SDK, which drops what it does not know from a tool's schema, reads files whose names stand where
an image should, and splits lines at U+0085 (docs/adr/0008).
"""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, Offer, ReasoningDelta, TextDelta
from workers.providers.errors import RefusedError, StreamedError, Upstream, host_of
from workers.providers.framing import decode, deltas_of, lines_of
from workers.providers.http_calls import NETWORK_ERRORS, SPARE_CONNECTIONS, ProviderCall, check_type, offer
from workers.providers.ollama_request import body_of
from workers.providers.tool_calls import ToolCalls
from workers.writing.surrogates import well_formed

CATCH: Final = (aiohttp.ClientError, RefusedError, StreamedError, *NETWORK_ERRORS)
_DEFAULT_PORT: Final = 11434

#: A word not listed here still means that the answer is complete: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {"length": "length"}


class OllamaProvider:
    """Needs ``ollama_host``. Made within a running event loop."""

    name = "ollama"
    counts_tokens = False

    def __init__(self, settings: Settings) -> None:
        host = settings.ollama_host
        if host is None:
            raise ValueError("OllamaProvider needs ollama_host")
        self._upstream = Upstream(self.name, host_of(host), "OLLAMA_API_KEY", "OLLAMA_HOST")
        self._models = settings.ollama_models
        self._settings = settings
        key = settings.ollama_api_key
        self._url = base_url(host)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.concurrency + SPARE_CONNECTIONS),
            timeout=_timeout(settings.timeouts(self.name).connect_s),
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else None,
            trust_env=True,  # for proxies, as the SDKs of the others do
        )

    async def offer(self) -> Offer:
        return await offer(self._models, self._ask, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        with ProviderCall(self._upstream, request.model, CATCH) as exchange:
            answer = _Answer(exchange, ToolCalls(self.name))
            async with self._post(request) as response:
                _check(response)
                check_type(response.headers)
                exchange.started = True
                async for deltas in deltas_of(response.content.iter_any(), lines_of, answer):
                    yield deltas
        if exchange.finished is not None:
            yield exchange.finished

    async def aclose(self) -> None:
        await self._session.close()

    def _post(self, request: ChatRequest) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        connect_s = self._settings.timeouts(self.name, request.model).connect_s
        body = msgspec.json.encode(body_of(request))
        headers = {"Content-Type": "application/json"}
        return self._session.post(f"{self._url}/api/chat", data=body, headers=headers, timeout=_timeout(connect_s))

    async def _ask(self) -> list[str]:
        async with self._session.get(f"{self._url}/api/tags") as response:
            _check(response)
            listed = msgspec.json.decode(await response.read(), type=_Models)
        return [model.model for model in listed.models]


def base_url(host: str) -> str:
    """``OLLAMA_HOST`` as Ollama itself reads it: the scheme and the port may be left out."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    port = parts.port or {"https": 443}.get(parts.scheme, 80 if "://" in host else _DEFAULT_PORT)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{login}{name}:{port}{parts.path.rstrip('/')}"


class _Answer:
    """One answer's lines. Its calls come whole, and without an id."""

    def __init__(self, exchange: ProviderCall, calls: ToolCalls) -> None:
        self.is_whole = False
        self._exchange = exchange
        self._calls = calls
        self._called = 0

    def take(self, line: bytes) -> Iterator[Delta]:
        part = decode(_decoder, line)
        if part.error is not None:
            raise StreamedError(None, None)
        if (message := part.message) is not None:
            if message.thinking:
                yield ReasoningDelta(message.thinking)
            if message.content:
                yield TextDelta(message.content)
            for call in message.tool_calls or ():
                arguments = well_formed(json.dumps(call.function.arguments or {}, ensure_ascii=False))
                yield from self._calls.fragment(self._called, id=None, name=call.function.name, arguments=arguments)
                yield from self._calls.complete(self._called)
                self._called += 1
        if part.done:
            self.is_whole = True
            reason = _FINISH.get(part.done_reason or "", "stop")
            self._exchange.finished = Finished(self._calls.reason(reason), _usage(part))


class _Function(msgspec.Struct):
    name: str = ""
    arguments: dict[str, Any] | None = None


class _ToolCall(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Part(msgspec.Struct):
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: object = None


class _Model(msgspec.Struct):
    model: str


class _Models(msgspec.Struct):
    models: list[_Model]


_decoder: Final = msgspec.json.Decoder(_Part)


def _usage(part: _Part) -> Usage | None:
    if part.eval_count is None:
        return None
    # Ollama leaves the prompt's count out when all of the prompt was in its cache.
    return Usage(input_tokens=part.prompt_eval_count or 0, output_tokens=part.eval_count)


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        raise RefusedError(response.status, response.headers)


def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
