"""The Durable Streams protocol, read by long polling."""

import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

import httpx2

from headrace_conformance.client import Endpoint, Observer, Reading, Request, Unreachable
from headrace_conformance.profile import Stream
from headrace_conformance.profiles.durable_streams import DurableStreams
from headrace_conformance.sse import Event


class DurableStreamsPolls(DurableStreams):
    """Each response has all messages up to the end of the stream, and the offset of the next poll."""

    name = "durable-streams-polls"
    title = "Durable Streams, long polling"
    media_type = "application/json"

    def attach(self, stream: Stream, cursor: str | None) -> Request:
        return Request("GET", f"/{stream.id}?live=long-poll&offset={cursor or -1}", {"Accept": "application/json"})

    async def open(self, endpoint: Endpoint, stream: Stream, cursor: str | None) -> "_Polls":
        polls: list[_Polls] = []

        def read(response: httpx2.Response, patience_s: float, observe: Observer) -> _Polls:
            polls.append(_Polls(response, patience_s, observe, partial(self.open, endpoint, stream)))
            return polls[-1]

        await endpoint.open(self.attach(stream, cursor), read)
        return polls[-1]


class _Polls(Reading):
    """Polls, one after another, as one reading. Each response is an event, and its cursor the next poll's offset."""

    def __init__(
        self,
        response: httpx2.Response,
        patience_s: float,
        observe: Observer,
        poll: Callable[[str], Awaitable["_Polls"]],
    ) -> None:
        super().__init__(response, patience_s, observe)
        self._poll = poll
        self._offset: str | None = None

    async def _read(self) -> bool:
        try:
            if self._offset is not None:
                self._response = (await self._poll(self._offset))._response
            body = await self._response.aread()
        except (httpx2.HTTPError, Unreachable):
            self._finish("broken")
            return False
        self.raw += body
        if self._response.is_error:
            self._finish("complete")
            return False
        self._take(body)
        return True

    def _take(self, body: bytes) -> None:
        headers = self._response.headers
        closed = headers.get("Stream-Closed", "").lower() == "true"
        self._offset = headers.get("Stream-Next-Offset", "")
        data = json.dumps({"messages": json.loads(body or b"[]"), "closed": closed})
        self.events.append(Event("poll", data, None, self._offset, is_dispatched=True, end=len(self.raw)))
        self.times.append(time.monotonic())
        if closed:
            self._finish("complete")
