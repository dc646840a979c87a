"""Reads a stream and notes when each part of it arrives."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import httpx2

from headrace.doctor.gateway_calls import GatewayCalls
from headrace.unreachable import reason_of
from headrace_client._sse import Frame, SseDecoder

#: Pieces that come closer together than this were on the wire together.
_TOGETHER_S: Final = 0.002
_LONGEST_PAGE: Final = 2000


@dataclass(slots=True)
class Arrival:
    """An event with an id, and the seconds from the request to its arrival."""

    at_s: float
    name: str
    id: str


@dataclass(slots=True)
class Reading:
    """One connection to a stream. ``problem``: it broke off, and why. ``silences``: gaps between arrivals of bytes,
    heartbeats included. ``ended_s``: from the request to the end of the connection. ``cache``: as of a reply.
    ``was_too_long``: we ended it."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    http_version: str = ""
    arrivals: list[Arrival] = field(default_factory=list)
    heartbeats: int = 0
    is_done: bool = False
    problem: str = ""
    was_too_long: bool = False
    ended_s: float = 0.0
    last_byte_s: float = 0.0
    page: str = ""
    cache: str = ""

    @property
    def is_stream(self) -> bool:
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def stream_id(self) -> str:
        return self.headers.get("x-stream-id", "")

    @property
    def tokens(self) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.name == "token"]

    @property
    def moments(self) -> int:
        """Return how often tokens have arrived: those of one moment were sent, or held back, together."""
        times = [arrival.at_s for arrival in self.tokens]
        return sum(at - before > _TOGETHER_S for before, at in pairwise([float("-inf"), *times]))

    @property
    def span_s(self) -> float:
        """Return the time from the first token to the last one."""
        times = [arrival.at_s for arrival in self.tokens]
        return times[-1] - times[0] if times else 0.0

    @property
    def longest_gap_s(self) -> float:
        times = [arrival.at_s for arrival in self.tokens]
        return max((at - before for before, at in pairwise(times)), default=0.0)


async def read_stream(
    gateway: GatewayCalls,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    within_s: float = 60,
) -> Reading:
    """Read a stream to its end, or for ``within_s``. A connection that fails or breaks is a result too."""
    reading = Reading()
    request_id = gateway.new_request_id()
    own = {"Accept": "text/event-stream", "X-Request-Id": request_id, **(headers or {})}
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        own["Content-Type"] = "application/json"
    began_at = time.monotonic()
    timeout = httpx2.Timeout(within_s, connect=5)
    try:
        async with (
            asyncio.timeout(within_s),
            gateway.http.stream(method, path, content=content, headers=own, timeout=timeout) as response,
        ):
            reading.status, reading.headers = response.status_code, response.headers
            reading.http_version = response.http_version
            reading.cache = gateway.cache_sign(response.headers, request_id)
            await _take_all(response, reading, began_at)
    except httpx2.HTTPError as error:
        reading.problem = reason_of(error)
    except TimeoutError:
        reading.problem, reading.was_too_long = f"no end within {within_s:g} s", True
    reading.ended_s = time.monotonic() - began_at
    return reading


async def _take_all(response: httpx2.Response, reading: Reading, began_at: float) -> None:
    decoder = SseDecoder()
    async for piece in response.aiter_bytes():
        reading.last_byte_s = time.monotonic() - began_at
        if not reading.is_stream:
            reading.page = (reading.page + piece.decode(errors="replace"))[:_LONGEST_PAGE]
            continue
        for frame in decoder.feed(piece):
            _take(frame, reading)
        reading.heartbeats = decoder.heartbeats


def _take(frame: Frame, reading: Reading) -> None:
    if frame.id:
        reading.arrivals.append(Arrival(reading.last_byte_s, frame.name, frame.id))
    if frame.name == "done":
        reading.is_done = True
