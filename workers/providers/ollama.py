"""Ollama's own ``/api/chat``, which takes Ollama's options; its OpenAI-compatible API does not.

This module does not use Ollama's SDK: that drops unknown keywords of a tool's schema, reads local files named in an
image field, and splits lines at U+0085 (docs/adr/0008).
"""

import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared.schemas import ChatRequest
from shared.setting_types import Timeouts
from workers.providers.base import AnswerPart, ModelList, Sink
from workers.providers.endpoint import ApiKey, Endpoint
from workers.providers.errors import RefusedError, StreamedError
from workers.providers.framing import LineCutter
from workers.providers.http_calls import (
    NETWORK_ERRORS,
    SPARE_CONNECTIONS,
    calls_of,
    check_type,
    list_models,
    probe_models,
    read_json,
)
from workers.providers.model_dates import seconds_of
from workers.providers.ollama_reader import OllamaReader
from workers.providers.ollama_request import body_of, ignored_by
from workers.providers.posts import DirectPosts, Posts, can_post_directly, check_status
from workers.providers.reading import deltas_of
from workers.providers.redirects import redirect_checks
from workers.providers.refused_fields import OLLAMA_FIELDS, AdaptedRequest, RefusedFields
from workers.providers.response_body import ResponseBody
from workers.providers.tool_calls import ToolCalls, offered_tools

CATCH: Final = (aiohttp.ClientError, RefusedError, StreamedError, *NETWORK_ERRORS)
_DEFAULT_PORT: Final = 11434
_JSON: Final = {"Content-Type": "application/json"}
DEFAULT_HOST: Final = f"http://127.0.0.1:{_DEFAULT_PORT}"


class OllamaProvider:
    """A provider of kind ``ollama``. Requires a running event loop."""

    family = "ollama"
    counts_tokens = False

    def __init__(self, endpoint: Endpoint) -> None:
        host = endpoint.entry.base_url or DEFAULT_HOST
        self.name = endpoint.name
        self._endpoint = endpoint
        self._upstream = endpoint.upstream(host)
        self._refused = RefusedFields(self._upstream, OLLAMA_FIELDS)
        self._models = endpoint.entry.models
        self._url = base_url(host)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=endpoint.connections + SPARE_CONNECTIONS),
            timeout=_timeout(endpoint.timeouts().connect_s),
            headers=endpoint.entry.headers,
            trace_configs=[redirect_checks()],
            trust_env=True,  # for proxies, as the other providers' SDKs do
        )
        self._posts = _posts_of(endpoint, self._url, self._session)

    async def list_models(self) -> ModelList:
        return await list_models(self._models, self._upstream, self._fetch_models, CATCH)

    async def probe(self, key: ApiKey | None = None) -> tuple[str, ...]:
        return await probe_models(self._upstream, partial(self._fetch_models, key), CATCH)

    async def stream(
        self, request: ChatRequest, key: ApiKey | None = None, sink: Sink | None = None
    ) -> AsyncGenerator[AnswerPart, None]:
        timeouts = self._endpoint.timeouts(request.model)
        adapted = AdaptedRequest(request, self._refused, body_of, ignored_by(request))
        for call in calls_of(self._upstream, adapted, CATCH):
            with call:
                reader = OllamaReader(call, ToolCalls(self.name, offered_tools(request)), request)
                credentials = self._endpoint.credentials(key)
                async with self._posts.post("/api/chat", adapted.body, credentials, timeouts) as body:
                    if ignored := call.start():
                        yield ignored
                    async for deltas in deltas_of(body, LineCutter(), reader, timeouts.grace_s, sink):
                        call.has_output = True
                        yield deltas
        if call.finished is not None:
            yield call.finished

    async def aclose(self) -> None:
        await self._posts.aclose()
        await self._session.close()

    async def _fetch_models(self, key: ApiKey | None = None) -> dict[str, int]:
        headers = self._endpoint.credentials(key)
        async with self._session.get(f"{self._url}/api/tags", headers=headers) as response:
            await check_status(response.status, response.headers, response.content.iter_any())
            listed = msgspec.convert(await read_json(response.content.iter_any()), _Models)
        return {model.model: seconds_of(model.modified_at) for model in listed.models}


def base_url(host: str) -> str:
    """Return the base URL for ``OLLAMA_HOST``. As in Ollama itself, scheme and port are optional."""
    parts = urlsplit(host if "://" in host else f"http://{host}")
    port = parts.port or {"https": 443}.get(parts.scheme, 80 if "://" in host else _DEFAULT_PORT)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{login}{name}:{port}{parts.path.rstrip('/')}"


def _posts_of(endpoint: Endpoint, url: str, session: aiohttp.ClientSession) -> Posts:
    """Return what sends the requests for answers."""
    has_netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser().exists()
    if has_netrc or not can_post_directly(url):
        return _SessionPosts(session, url)
    headers = {**endpoint.entry.headers, **_JSON}
    return DirectPosts(url, headers, endpoint.connections, ssl.create_default_context)


class _SessionPosts:
    """Requests for answers over aiohttp, which supports proxies and logins."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, Any], timeouts: Timeouts
    ) -> AsyncIterator[ResponseBody]:
        async with self._session.post(
            self._url + path,
            data=msgspec.json.encode(body),
            headers={**_JSON, **headers},
            timeout=_timeout(timeouts.connect_s),
        ) as response:
            reads = response.content.iter_any()
            await check_status(response.status, response.headers, reads)
            check_type(response.headers)
            yield ResponseBody(reads)

    async def aclose(self) -> None:
        """Do nothing: the session is another one's."""


class _Model(msgspec.Struct):
    model: str
    modified_at: Any = None


class _Models(msgspec.Struct):
    models: list[_Model]


def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
