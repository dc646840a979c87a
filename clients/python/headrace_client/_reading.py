"""Rules for reading one stream to its end over as many connections as needed, without I/O.

The cursor is the id of the last event that was handed out. A connection that ends before ``done`` never ends the
answer, however it ends: the next one continues after the cursor.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Final

from headrace_client._responses import ended_early, failure_of, not_headrace
from headrace_client._retries import Retries
from headrace_client._sse import Frame, SseDecoder
from headrace_client.errors import HeadraceError
from headrace_client.events import Done, Event, event_of

_NO_CONTENT: Final = 204
_STREAM: Final = "text/event-stream"


class Reading:
    """Progress of one reader."""

    def __init__(self, retry_timeout_s: float, last_event_id: str) -> None:
        self.last_event_id = last_event_id
        self.has_ended = False
        #: The gateway has nothing after the cursor: the answer has ended, and its ``done`` was read before.
        self.is_complete = False
        self.retries = Retries(retry_timeout_s)
        self._has_connected = False
        self._decoder = SseDecoder()

    def headers(self) -> dict[str, str]:
        """Return the headers of the next request."""
        # Compressed bytes would come in larger pieces, and a cut would lose more of them.
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
        return headers | ({"Last-Event-ID": self.last_event_id} if self.last_event_id else {})

    def is_stream(self, status: int, headers: Mapping[str, str]) -> bool:
        """Begin a connection. Return False if its response is not a stream; :meth:`refuse` raises the reason."""
        if status != 200 or not headers.get("content-type", "").startswith(_STREAM):
            return False
        self._has_connected = True
        self._decoder = SseDecoder()
        return True

    def refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """End a connection whose response is no stream. Raises its failure, unless the answer is complete."""
        if status == _NO_CONTENT:
            self.is_complete = True
        elif status != 200:
            raise failure_of(status, headers, body)
        elif self._has_connected or _STREAM.startswith(headers.get("content-type", "")):
            # The head may be cut in the middle of its type. And once the stream was read here, another server's page
            # is a passing fault of a proxy.
            raise ended_early()
        else:
            raise not_headrace(status)

    def feed(self, received: bytes) -> Iterator[Event]:
        """Yield the events that ``received`` completes, and move the cursor with each."""
        decoder = self._decoder
        heartbeats = decoder.heartbeats
        try:
            for frame in decoder.feed(received):
                event = _event_in(frame)
                self.retries.reset()
                self.last_event_id = event.event_id or self.last_event_id
                self.has_ended = isinstance(event, Done)
                yield event
                if self.has_ended:
                    return
        finally:
            # A heartbeat proves that the gateway reads the stream. Otherwise a model that thinks for long behind a
            # proxy that cuts every minute would exhaust the retries.
            if decoder.heartbeats != heartbeats:
                self.retries.reset()
            if decoder.retry_ms is not None:
                self.retries.first_delay_s = decoder.retry_ms / 1000

    def end_without_events(self, done: Done) -> Done:
        """End the reading after 204 with ``done``, so that every reading ends with it."""
        self.has_ended = True
        return done


def _event_in(frame: Frame) -> Event:
    try:
        data = json.loads(frame.data)
        if isinstance(data, dict):
            return event_of(frame.name, frame.id, data)
    except (ValueError, TypeError):
        pass
    message = f"event {frame.name[:50]!r}: not in the format of the protocol"
    raise HeadraceError("invalid_event", message, retryable=False, status=200)
