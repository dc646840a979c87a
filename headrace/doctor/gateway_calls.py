"""HTTP requests of the doctor to one URL. Redirects are not followed, and no response is taken for granted."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx2

from headrace.unreachable import reason_of
from shared.printable import one_line

_TIMEOUT: Final = httpx2.Timeout(15, connect=5)
_LONGEST: Final = 200
_CACHE_HEADERS: Final = ("x-cache", "cf-cache-status", "x-cache-status", "cache-status")


class Unreachable(Exception):
    """There was no response; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response. ``body``: JSON, or None. ``cache``: the sign that a cache has answered; empty if none has."""

    status: int
    headers: Mapping[str, str]
    body: Any
    cache: str
    sent_at: float
    took_s: float

    @property
    def error(self) -> dict[str, Any] | None:
        """Return Headrace's own error; None if the response is of another server, such as a proxy."""
        match self.body:
            case {"error": {"message": str(), "code": str()}}:
                found: dict[str, Any] = self.body["error"]
                return found
        return None

    @property
    def text(self) -> str:
        """Describe an error response."""
        error = self.error
        own = f" {error['code']}: {one_line(error['message'])[:_LONGEST]}" if error else ", not of a gateway"
        return f"HTTP {self.status}{own}"


def shown(url: str) -> str:
    """Return a URL without a user and a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class GatewayCalls:
    """Requests to one URL, with an API key if there is one."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self.has_key = bool(key)
        self._request_ids: set[str] = set()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx2.AsyncClient(base_url=url, timeout=_TIMEOUT, headers=headers)

    @property
    def shown(self) -> str:
        """Return the URL without a user and a password."""
        return shown(self.url)

    @property
    def is_https(self) -> bool:
        return urlsplit(self.url).scheme == "https"

    def at(self, url: str) -> "GatewayCalls":
        """Return the same for another URL."""
        authorization = self.http.headers.get("authorization", "")
        return GatewayCalls(url, authorization.removeprefix("Bearer ") or None)

    async def call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
    ) -> Reply:
        """Send a request. Raises :class:`Unreachable`."""
        request_id = self.new_request_id()
        own = {"X-Request-Id": request_id, **(headers or {})}
        sent_at, began_at = time.time(), time.monotonic()
        try:
            response = await self.http.request(method, path, headers=own, json=json, content=content)
        except httpx2.HTTPError as error:
            raise Unreachable(reason_of(error)) from error
        took_s = time.monotonic() - began_at
        try:
            body = response.json()
        except ValueError:
            body = None
        cache = self.cache_sign(response.headers, request_id)
        return Reply(response.status_code, response.headers, body, cache, sent_at, took_s)

    def new_request_id(self) -> str:
        """Return an id for the header X-Request-Id, which gateways repeat in their responses."""
        request_id = f"doctor-{secrets.token_hex(8)}"
        self._request_ids.add(request_id)
        return request_id

    def cache_sign(self, headers: Mapping[str, str], request_id: str) -> str:
        """Return the sign that a cache has answered: the response is to an earlier request of ours, or says so."""
        answered = headers.get("x-request-id", "")
        if answered != request_id and answered in self._request_ids:
            return "its X-Request-Id is that of an earlier request"
        for name in _CACHE_HEADERS:
            if "hit" in headers.get(name, "").lower():
                return f"{name}: {headers[name]}"
        return f"Age: {headers['age']}" if headers.get("age", "0") != "0" else ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()
