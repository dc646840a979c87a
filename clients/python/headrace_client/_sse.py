"""Decoder of server-sent events, from bytes to frames, without I/O.

httpx2's reader does not fit: it defers ``retry:`` until a blank line, but a draining gateway sends ``retry:`` last,
without a blank line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_MILLISECONDS: Final = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as text. ``id`` is None for an event without an id of its own."""

    name: str
    data: str
    id: str | None


class SseDecoder:
    """Decoder of one connection. Lines end with LF or CRLF. An event without its final blank line is dropped.

    ``heartbeats`` counts the comments.
    """

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        self.heartbeats = 0
        self._id: str | None = None
        self._name = ""
        self._data: list[str] = []
        self._rest = bytearray()

    def feed(self, received: bytes) -> Iterator[Frame]:
        """Yield the frames that ``received`` completes."""
        self._rest += received
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in lines:
            frame = self._take(line.removesuffix(b"\r").decode(errors="replace"))
            if frame is not None:
                yield frame

    def _take(self, line: str) -> Frame | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "":
            self.heartbeats += 1
        elif field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and _MILLISECONDS.fullmatch(value):
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Frame | None:
        frame = Frame(self._name or "message", "\n".join(self._data), self._id or None) if self._data else None
        self._name, self._data, self._id = "", [], None
        return frame
