"""HTTP/1.1 for the load client, cheap enough for hundreds of thousands of chunks a second."""

import re
from collections.abc import Mapping
from typing import Final

_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM_ID: Final = re.compile(rb"\r\nx-stream-id: *(\S+)", re.IGNORECASE)


def request(port: int, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    given = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json", "Accept": "text/event-stream"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**given, **headers}.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Response:
    """Parser of one response: :meth:`feed` takes bytes of the socket and returns bytes of the body. ``status`` is 0
    until the head is complete; ``ended`` is true after a proper end."""

    __slots__ = ("_chunked", "_left", "_unparsed", "ended", "status", "stream_id")

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self.stream_id = ""
        self._chunked = False
        self._unparsed = b""
        self._left = 0  # bytes of the chunk (its line break counted) or of the whole body; -1: until the peer closes

    def feed(self, data: bytes) -> bytes:
        if self._unparsed:
            data, self._unparsed = self._unparsed + data, b""
        at = 0
        if not self.status:
            at = self._head(data)
        if not self.status or self.ended:
            return b""
        return self._dechunk(data, at) if self._chunked else self._plain(data[at:])

    def closed(self) -> None:
        """Note that the peer has closed."""
        if self._left == -1 and self.status:
            self.ended = True

    def _head(self, data: bytes) -> int:
        """Parse the head and return the position of the body."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._unparsed = data
            return 0
        head = data[:end]
        self.status = int(head[9:12])
        self._chunked = _CHUNKED.search(head) is not None
        if not self._chunked:
            length = _LENGTH.search(head)
            self._left = int(length[1]) if length else -1
            self.ended = self._left == 0
        if found := _STREAM_ID.search(head):
            self.stream_id = found[1].decode()
        return end + 4

    def _plain(self, data: bytes) -> bytes:
        if self._left >= 0:
            self._left -= len(data)
            self.ended = self._left <= 0
        return data

    def _dechunk(self, data: bytes, at: int) -> bytes:
        parts = []
        left, size = self._left, len(data)
        while at < size:
            if not left:
                line_end = data.find(b"\r\n", at)
                if line_end < 0:
                    self._unparsed = data[at:]
                    break
                length = int(data[at:line_end].partition(b";")[0], 16)
                at = line_end + 2
                if not length:
                    self.ended = True
                    break
                left = length + 2
            if left > 2:
                parts.append(data[at : at + left - 2])
            taken = min(left, size - at)
            at += taken
            left -= taken
        self._left = left
        return b"".join(parts) if len(parts) != 1 else parts[0]
