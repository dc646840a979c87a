"""HTTP side of the kit: requests to the endpoint, and readings of its streams."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httpx2

from headrace_conformance.sse import Event, Parser

#: How a reading stands: ``complete`` after a clean end of the body, ``broken`` after an aborted one, ``left`` by us.
ReadingEnd = Literal["open", "complete", "broken", "left"]


class Stalled(Exception):
    """The endpoint sent no event for longer than the kit's patience."""


class Unreachable(Exception):
    """The endpoint aborted a request before its response, or did not respond; the message has the reason."""


@dataclass(frozen=True)
class Request:
    """One HTTP request. ``path`` is appended to the endpoint's URL, unless it is a whole URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    #: JSON, unless it is bytes; None: no body.
    body: Any = None


@dataclass(frozen=True)
class Reply:
    """A response that was read as a whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_error(self) -> bool:
        return self.status >= 400


class Reading:
    """One connection on which a stream is read. ``events`` are all that have come, dispatched or not."""

    def __init__(self, response: httpx2.Response, patience_s: float, observe: "Observer") -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.events: list[Event] = []
        self.parser = Parser()
        self.raw = bytearray()
        self.end: ReadingEnd = "open"
        #: Monotonic time at which each event came.
        self.times: list[float] = []
        self._response = response
        self._patience_s = patience_s
        self._observe = observe
        self._chunks = response.aiter_raw()
        self._at = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.leave()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event

    @property
    def is_error(self) -> bool:
        return self.status >= 400

    def take(self, events: list[Event]) -> list[Event]:
        """Return the events that count. Subclasses may join some of them to one."""
        return events

    async def next(self) -> Event | None:
        """Return the next event, None at the end. Raises :class:`Stalled`."""
        try:
            async with asyncio.timeout(self._patience_s):
                while self._at >= len(self.events):
                    if self.end != "open" or not await self._read():
                        return None
        except TimeoutError:
            await self.leave()
            raise Stalled(f"no event for {self._patience_s:g} s") from None
        self._at += 1
        return self.events[self._at - 1]

    async def until(self, wanted: Callable[[Event], bool]) -> Event | None:
        """Read up to the first event that is wanted, and return it; None if the stream ends before."""
        async for event in self:
            if wanted(event):
                return event
        return None

    async def rest(self) -> list[Event]:
        """Read to the end, and return all events of this connection."""
        async for _ in self:
            pass
        return self.events

    async def leave(self) -> None:
        """Close the connection, if it is open."""
        if self.end == "open":
            self._finish("left")
        with suppress(httpx2.HTTPError, RuntimeError):
            await self._response.aclose()

    async def _read(self) -> bool:
        try:
            chunk = await anext(self._chunks, None)
        except httpx2.HTTPError:
            self._finish("broken")
            return False
        if chunk is None:
            self._finish("complete")
            return False
        self.raw += chunk
        events = self.take(self.parser.feed(chunk))
        self.events += events
        self.times += [time.monotonic()] * len(events)
        return True

    def _finish(self, end: ReadingEnd) -> None:
        self.end = end
        self._observe(self)


Observer = Callable[[Reading], None]
#: Makes the reading of a response, with the patience in seconds.
Reader = Callable[[httpx2.Response, float, Observer], Reading]


class Endpoint:
    """Server under test. ``headers`` go with every request. ``patience_s``: longest silence that is waited for."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, patience_s: float = 30) -> None:
        self.url = url.rstrip("/")
        self.patience_s = patience_s
        self.headers = {"Accept-Encoding": "identity", **(headers or {})}
        timeout = httpx2.Timeout(patience_s, read=None)
        # Servers close idle connections, often after five seconds: a request must not be sent at that moment.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=2)
        self._http = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
        self._through: str | None = None
        #: Called with each reading that is over.
        self.observe: Observer = lambda reading: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    def through(self, proxy_url: str) -> "Endpoint":
        """Return the same endpoint, reached through a proxy of the kit."""
        other = copy(self)
        other._through = proxy_url
        return other

    def at(self, url: str) -> "Endpoint":
        """Return another server of the same endpoint, such as a second gateway."""
        other = copy(self)
        other.url = url.rstrip("/")
        return other

    async def open(self, request: Request, reading: "Reader" = Reading) -> Reading:
        """Send a request and return its response, whose body is unread. Raises :class:`Unreachable`, also if the
        response does not begin in time."""
        sent = self._build(replace(request, headers={"Accept": "text/event-stream", **request.headers}))
        try:
            async with asyncio.timeout(self.patience_s):
                response = await self._http.send(sent, stream=True)
        except TimeoutError:
            raise Unreachable(f"{request.method} {request.path}: no response in {self.patience_s:g} s") from None
        except httpx2.HTTPError as error:
            raise Unreachable(f"{request.method} {request.path}: {type(error).__name__}") from error
        return reading(response, self.patience_s, self.observe)

    async def send(self, request: Request) -> Reply:
        """Send a request and read its whole response. Raises :class:`Unreachable`, :class:`Stalled`."""
        try:
            async with asyncio.timeout(self.patience_s):
                response = await self._http.send(self._build(request))
        except httpx2.HTTPError as error:
            raise Unreachable(f"{request.method} {request.path}: {type(error).__name__}") from error
        except TimeoutError:
            raise Stalled(f"{request.method} {request.path}: no response in {self.patience_s:g} s") from None
        return Reply(response.status_code, response.headers, response.content)

    def _build(self, request: Request) -> httpx2.Request:
        url = request.path if "://" in request.path else self.url + request.path
        headers = {**self.headers, **request.headers}
        if self._through is not None:
            parts = urlsplit(url)
            headers["Host"] = parts.netloc
            url = self._through + url.removeprefix(f"{parts.scheme}://{parts.netloc}")
        if request.body is None or isinstance(request.body, bytes):
            return self._http.build_request(request.method, url, headers=headers, content=request.body)
        return self._http.build_request(request.method, url, headers=headers, json=request.body)
