"""Decoder of server-sent events, from bytes to events, without I/O.

httpx2's reader does not fit: it defers ``retry:`` until a blank line, but a draining gateway sends ``retry:`` last,
without a blank line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_MILLISECONDS: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. ``last_event_id`` is the id to resume from after this event."""

    name: str
    data: str
    last_event_id: str


class SseDecoder:
    """Decoder of one connection. Lines end with LF or CRLF. An event without its final blank line is dropped."""

    def __init__(self, last_event_id: str = "") -> None:
        self.retry_ms: int | None = None
        self._last_event_id = last_event_id
        self._name = ""
        self._data: list[str] = []
        self._rest = bytearray()

    def feed(self, received: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that ``received`` completes."""
        self._rest += received
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in lines:
            event = self._take(line.removesuffix(b"\r").decode(errors="replace"))
            if event is not None:
                yield event

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._last_event_id = value
        elif field == "retry" and _MILLISECONDS.fullmatch(value):
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        name, data = self._name or "message", "\n".join(self._data)
        nothing = not self._data
        self._name, self._data = "", []
        return None if nothing else ServerSentEvent(name, data, self._last_event_id)
