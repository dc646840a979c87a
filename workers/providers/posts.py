"""Requests for answers, to one server: over connections of our own, or by the provider's SDK.

An SDK and its HTTP client take 1.5 ms of CPU for an answer, aiohttp alone 0.3 ms, and more than everything else for a
token (docs/adr/0019). The SDK still makes the headers, once. It sends the requests where it does more than that:
through a proxy, with an identity of a cloud, or with a login in the URL.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2
import msgspec
from yarl import URL

from shared.setting_types import Timeouts
from workers.providers.connection_pool import ConnectionPool
from workers.providers.endpoint import Endpoint
from workers.providers.errors import RedirectedError, RefusedError
from workers.providers.http_calls import check_type, timeout_of
from workers.providers.redirects import redirect_target, refusal_text
from workers.providers.request_head import RequestHead
from workers.providers.response_body import ResponseBody

_MOST_REDIRECTS: Final = 10


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
    if not can_post_directly(base_url) or endpoint.entry.auth == "entra":
        return SdkPosts(client, stream_cls)
    headers = {**client.auth_headers, **client.default_headers, "X-Stainless-Retry-Count": "0"}
    return DirectPosts(base_url, headers, endpoint.connections, httpx2.create_ssl_context)


def can_post_directly(base_url: str) -> bool:
    """Return False for a server behind a proxy, with a login in its URL, or of another scheme."""
    parts = urlsplit(base_url)
    has_proxy = not {parts.scheme, "all"}.isdisjoint(getproxies())
    return parts.scheme in {"http", "https"} and not has_proxy and "@" not in parts.netloc


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
        return ResponseBody(response.aiter_bytes())


class DirectPosts:
    """Requests over connections of an own pool, which keeps ``most_idle`` of them."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, Any],
        most_idle: int,
        make_context: Callable[[], ssl.SSLContext],
    ) -> None:
        self._url = URL(base_url.rstrip("/"))
        self._head = RequestHead(self._url, headers)
        make_context_of = {"http": None, "https": make_context}
        self._pool = ConnectionPool(
            self._url.raw_host or "", self._url.port or 0, make_context_of[self._url.scheme], most_idle
        )
        self._urls: dict[str, URL] = {}

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any], headers: Mapping[str, Any], timeouts: Timeouts
    ) -> AsyncIterator[ResponseBody]:
        data, url = msgspec.json.encode(body), self._url_of(path)
        for _ in range(_MOST_REDIRECTS):
            head = self._head.to(url, headers, data)
            async with self._pool.request((head, data), timeouts.connect_s) as response:
                if cookies := response.headers.getall("set-cookie", []):
                    self._head.note_cookies(cookies, url)
                status = response.status
                if not 300 <= status < 400:
                    del data  # it may be large, and the answer long
                    answer = ResponseBody.of(response)
                    await check_status(status, response.headers, answer.reads)
                    check_type(response.headers)
                    yield answer
                    return
                url = redirect_target(status, response.headers, url)
        raise RedirectedError(status, str(url.origin()))

    async def aclose(self) -> None:
        self._pool.close()

    def _url_of(self, path: str) -> URL:
        if path not in self._urls:
            self._urls[path] = URL(str(self._url).rstrip("/") + path)
        return self._urls[path]


async def check_status(status: int, headers: Mapping[str, str], reads: AsyncIterator[bytes]) -> None:
    """Raise :class:`RefusedError` for an HTTP error, with the provider's report as the SDKs parse it."""
    if status < 300:
        return
    if status < 400:
        raise RedirectedError(status)
    text = await refusal_text(reads)
    try:
        body: Any = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    raise RefusedError(status, headers, body)
