"""Ollama's own ``/api/chat``, which takes Ollama's options; its OpenAI-compatible API does not.

This module does not use Ollama's SDK: that drops unknown keywords of a tool's schema, reads local files named in an
image field, and splits lines at U+0085 (docs/adr/0008).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared.protocol.events import Usage
from shared.schemas import ChatRequest
from shared.settings import Settings
from workers.providers.base import Delta, Finished, FinishReason, ModelList, ReasoningDelta, TextDelta
from workers.providers.errors import RefusedError, StreamedError, Upstream, host_of
from workers.providers.framing import decode, deltas_of, lines_of
from workers.providers.http_calls import NETWORK_ERRORS, SPARE_CONNECTIONS, ProviderCall, check_type, list_models
from workers.providers.ollama_request import body_of
from workers.providers.tool_calls import ToolCalls
from workers.writing.surrogates import well_formed

CATCH: Final = (aiohttp.ClientError, RefusedError, StreamedError, *NETWORK_ERRORS)
_DEFAULT_PORT: Final = 11434
#: The body of an error is optional: read at most so much, for so long.
_ERROR_BODY_BYTES: Final = 16 * 1024
_ERROR_BODY_S: Final = 1.0

#: Any other done reason still means a complete answer: stop.
_FINISH: Final[Mapping[str, FinishReason]] = {"length": "length"}


class OllamaProvider:
    """Provider ``ollama``. Requires ``ollama_host`` and a running event loop."""

    name = "ollama"
    counts_tokens = False

    def __init__(self, settings: Settings) -> None:
        host = settings.ollama_host
        if host is None:
            raise ValueError("OllamaProvider: requires ollama_host")
        self._upstream = Upstream(self.name, host_of(host), "OLLAMA_API_KEY", "OLLAMA_HOST")
        self._models = settings.ollama_models
        self._settings = settings
        key = settings.ollama_api_key
        self._url = base_url(host)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.concurrency + SPARE_CONNECTIONS),
            timeout=_timeout(settings.timeouts(self.name).connect_s),
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else None,
            trust_env=True,  # for proxies, as the other providers' SDKs do
        )

    async def list_models(self) -> ModelList:
        return await list_models(self._models, self._fetch_models, CATCH)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[Delta] | Finished, None]:
        with ProviderCall(self._upstream, request.model, CATCH) as call:
            answer = _Answer(call, ToolCalls(self.name))
            async with self._post(request) as response:
                await _check(response)
                check_type(response.headers)
                call.started = True
                async for deltas in deltas_of(response.content.iter_any(), lines_of, answer):
                    yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._session.close()

    def _post(self, request: ChatRequest) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        connect_s = self._settings.timeouts(self.name, request.model).connect_s
        body = msgspec.json.encode(body_of(request))
        headers = {"Content-Type": "application/json"}
        return self._session.post(f"{self._url}/api/chat", data=body, headers=headers, timeout=_timeout(connect_s))

    async def _fetch_models(self) -> list[str]:
        async with self._session.get(f"{self._url}/api/tags") as response:
            await _check(response)
            listed = msgspec.json.decode(await response.read(), type=_Models)
        return [model.model for model in listed.models]


def base_url(host: str) -> str:
    """Return the base URL for ``OLLAMA_HOST``. As in Ollama itself, scheme and port are optional."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    port = parts.port or {"https": 443}.get(parts.scheme, 80 if "://" in host else _DEFAULT_PORT)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{login}{name}:{port}{parts.path.rstrip('/')}"


class _Answer:
    """Parser of one answer's lines. Tool calls arrive complete and without an id."""

    def __init__(self, call: ProviderCall, tool_calls: ToolCalls) -> None:
        self.is_whole = False
        self._call = call
        self._tool_calls = tool_calls
        self._call_count = 0

    def take(self, line: bytes) -> Iterator[Delta]:
        part = decode(_decoder, line)
        if part.error is not None:
            raise StreamedError(None, None, message=part.error)
        if (message := part.message) is not None:
            if message.thinking:
                yield ReasoningDelta(message.thinking)
            if message.content:
                yield TextDelta(message.content)
            for tool_call in message.tool_calls or ():
                function = tool_call.function
                arguments = well_formed(json.dumps(function.arguments or {}, ensure_ascii=False))
                yield from self._tool_calls.fragment(
                    self._call_count, id=None, name=function.name, arguments=arguments
                )
                yield from self._tool_calls.complete(self._call_count)
                self._call_count += 1
        if part.done:
            self.is_whole = True
            reason = _FINISH.get(part.done_reason or "", "stop")
            self._call.finished = Finished(self._tool_calls.reason(reason), _usage(part))


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
    # Ollama omits the prompt's count if the whole prompt was in its cache.
    return Usage(input_tokens=part.prompt_eval_count or 0, output_tokens=part.eval_count)


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raise :class:`RefusedError` for an HTTP error."""
    if response.status < 400:
        return
    body: object = None
    with suppress(TimeoutError, ValueError, aiohttp.ClientError):
        async with asyncio.timeout(_ERROR_BODY_S):
            body = msgspec.json.decode(await response.content.read(_ERROR_BODY_BYTES))
    raise RefusedError(response.status, response.headers, body)


def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
