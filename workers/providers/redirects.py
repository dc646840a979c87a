"""Redirects and error bodies of providers.

A redirect to another server is not followed: the key and the prompt would go there. The body of an error is read for
a moment only, and only its beginning, also of what it is decompressed to: it merely helps to classify the error.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from types import SimpleNamespace
from typing import Final, Protocol

import aiohttp
import httpx2
from yarl import URL

from workers.providers.errors import RedirectedError

ERROR_BODY_BYTES: Final = 16 * 1024
ERROR_BODY_S: Final = 1.0
#: Other statuses turn a POST into a GET.
_KEEP_METHOD: Final = frozenset({307, 308})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,253}")


class _Url(Protocol):
    """The members that the URLs of both HTTP clients have."""

    @property
    def scheme(self) -> str: ...

    @property
    def host(self) -> str | None: ...

    @property
    def port(self) -> int | None: ...


async def check_response(response: httpx2.Response) -> None:
    """Raise :class:`RedirectedError` for a redirect that is not followed, and limit the body of an error. A hook of
    the HTTP client."""
    if 300 <= response.status_code < 400:
        here = response.request.url
        try:
            target = here.join(response.headers["location"])
        except (KeyError, httpx2.InvalidURL):
            raise RedirectedError(response.status_code) from None
        _check(response.status_code, response.request.method, here, target)
    elif response.status_code >= 400 and isinstance(stream := response.stream, httpx2.AsyncByteStream):
        beginning = await _beginning(response, stream)
        await stream.aclose()
        response.headers.pop("content-encoding", None)
        response.stream = httpx2.ByteStream(beginning)


async def _beginning(response: httpx2.Response, stream: httpx2.AsyncByteStream) -> bytes:
    """Return the first bytes of a body, decompressed."""
    reading = httpx2.Response(response.status_code, headers=response.headers, stream=stream, request=response.request)
    body = bytearray()
    with suppress(TimeoutError, httpx2.HTTPError, OSError):
        async with asyncio.timeout(ERROR_BODY_S), aclosing(reading.aiter_bytes()) as pieces:
            async for piece in pieces:
                body += piece[: ERROR_BODY_BYTES - len(body)]
                if len(body) >= ERROR_BODY_BYTES:
                    break
    return bytes(body)


async def refusal_text(reads: AsyncIterator[bytes]) -> str:
    """Return the beginning of an error's body."""
    body = bytearray()
    with suppress(TimeoutError, ValueError, OSError, aiohttp.ClientError):
        async with asyncio.timeout(ERROR_BODY_S):
            async for read in reads:
                body += read[: ERROR_BODY_BYTES - len(body)]
                if len(body) >= ERROR_BODY_BYTES:
                    break
    return body.decode(errors="replace").strip()


def redirect_target(status: int, headers: Mapping[str, str], here: URL) -> URL:
    """Return the address to which a POST is sent again. Raises :class:`RedirectedError` if it is not."""
    location = headers.get("location") or headers.get("uri")
    if location is None or status not in _REDIRECTS:
        raise RedirectedError(status)
    try:
        target = here.join(URL(location))
        _check(status, "POST", here, target)
    except ValueError as error:
        raise error if isinstance(error, RedirectedError) else RedirectedError(status) from None
    return target


def redirect_checks() -> aiohttp.TraceConfig:
    """Return a hook that raises :class:`RedirectedError` for a redirect that is not followed."""
    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(_check_redirect)
    return config


async def _check_redirect(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, redirect: aiohttp.TraceRequestRedirectParams
) -> None:
    response = redirect.response
    location = response.headers.get("location") or response.headers.get("uri")
    try:
        if location is None:
            raise RedirectedError(response.status)
        _check(response.status, redirect.method, redirect.url, redirect.url.join(URL(location)))
    except ValueError as error:
        response.close()
        raise error if isinstance(error, RedirectedError) else RedirectedError(response.status) from None


def _check(status: int, method: str, here: _Url, target: _Url) -> None:
    is_same = (here.scheme, here.host, here.port) == (target.scheme, target.host, target.port)
    if not is_same or (method == "POST" and status not in _KEEP_METHOD):
        host = target.host if target.port is None else f"{target.host}:{target.port}"
        raise RedirectedError(status, f"{target.scheme}://{host}" if host and _HOST.fullmatch(host) else "")
