"""Requests for answers, to one server: over aiohttp alone, or by the provider's SDK.

An SDK and its HTTP client take 1.5 ms of CPU for an answer, five times as much as aiohttp itself (docs/adr/0019). The
SDK still makes the headers, once. It sends the requests where it does more than that: through a proxy, with an
identity of a cloud, or with a login in the URL.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp
import httpx2
import msgspec
from multidict import CIMultiDict
from yarl import URL

from shared.setting_types import Timeouts
from workers.providers.endpoint import Endpoint
from workers.providers.errors import RedirectedError, RefusedError
from workers.providers.http_calls import SPARE_CONNECTIONS, check_type, timeout_of
from workers.providers.redirects import redirect_checks, refusal_text
from workers.providers.tap import ResponseBody

#: Idle time after which a connection is not used again, as in the SDKs.
_KEEP_ALIVE_S: Final = 5.0


class Posts(Protocol):
    """Sender of one provider's requests for answers."""

    def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, Any], timeouts: Timeouts
    ) -> AbstractAsyncContextManager[ResponseBody]:
        """Send a request, and yield the body of a successful response. A value in ``headers`` that is no text removes
        a header."""
        ...

    async def aclose(self) -> None: ...


def posts_of(endpoint: Endpoint, client: Any, stream_cls: Any) -> Posts:
    """Return what sends the requests of an endpoint. ``client``, ``stream_cls``: the SDK's."""
    base_url = str(client.base_url)
    parts = urlsplit(base_url)
    has_proxy = not {parts.scheme, "all"}.isdisjoint(getproxies())
    if has_proxy or "@" in parts.netloc or endpoint.entry.auth == "entra":
        return SdkPosts(client, stream_cls)
    headers = {**client.auth_headers, **client.default_headers, "X-Stainless-Retry-Count": "0"}
    return DirectPosts(endpoint, base_url, headers)


class SdkPosts:
    """Requests by an SDK's client. Its own methods build models in 80 µs a chunk, more than everything else between
    provider and reader; ``post`` sends the same requests."""

    def __init__(self, client: Any, stream_cls: Any) -> None:
        self._client = client
        self._stream_cls = stream_cls

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, Any], timeouts: Timeouts
    ) -> AsyncIterator[ResponseBody]:
        response = await self._client.post(
            path,
            body=body,
            cast_to=object,
            options={"timeout": timeout_of(timeouts), "headers": headers},
            stream=True,
            stream_cls=self._stream_cls[object],
        )
        # Leaving the loop over a body does not close the connection; closing the response does.
        async with response:
            check_type(response.response.headers)
            yield self._body(response.response)

    async def aclose(self) -> None:
        """Do nothing: the client is another one's."""

    def _body(self, response: httpx2.Response) -> ResponseBody:
        return ResponseBody.of(response)


class DirectPosts:
    """Requests over connections of an own pool. ``headers``: the SDK's."""

    def __init__(self, endpoint: Endpoint, base_url: str, headers: Mapping[str, Any]) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = CIMultiDict[Any]()
        for name, value in headers.items():
            self._headers[name] = value
        self._connections = endpoint.connections + SPARE_CONNECTIONS
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, Any], timeouts: Timeouts
    ) -> AsyncIterator[ResponseBody]:
        session = self._session or self._open()
        async with session.post(
            self._url(path),
            data=msgspec.json.encode(body),
            headers=self._merged(headers),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s),
        ) as response:
            await check_status(response)
            check_type(response.headers)
            yield ResponseBody(response.content.iter_any(), response)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Open the session: it needs the event loop."""
        connector = aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=_KEEP_ALIVE_S, ssl=httpx2.create_ssl_context()
        )
        self._session = aiohttp.ClientSession(connector=connector, trace_configs=[redirect_checks()])
        return self._session

    def _url(self, path: str) -> URL:
        if path not in self._urls:
            self._urls[path] = URL(self._base_url + path)
        return self._urls[path]

    def _merged(self, headers: Mapping[str, Any]) -> CIMultiDict[str]:
        merged = self._headers.copy()
        for name, value in headers.items():
            merged[name] = value
        for name in [name for name, value in merged.items() if not isinstance(value, str)]:
            del merged[name]
        return merged


async def check_status(response: aiohttp.ClientResponse) -> None:
    """Raise :class:`RefusedError` for an HTTP error, with the provider's report as the SDKs parse it."""
    if response.status < 300:
        return
    if response.status < 400:
        raise RedirectedError(response.status)
    text = await refusal_text(response)
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    raise RefusedError(response.status, response.headers, body)
