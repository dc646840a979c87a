"""Direct writes to the body of a response that has begun: no coroutine, no message to the server."""

import asyncio
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

#: Key of the :class:`BodyWriter` in a request's scope.
BODY_WRITER: Final = "headrace.body_writer"


class _Chunk:
    """The piece that was written last, and its chunk: a thousand viewers of a stream get the same one in turn."""

    piece: bytes = b""
    framed: bytes = b""


_last: Final = _Chunk()


class BodyWriter:
    """Writer of one response's body. The server's own ``send`` may be used too, and it ends the body."""

    def __init__(self, cycle: RequestResponseCycle, flow: FlowControl, transport: asyncio.Transport) -> None:
        self._cycle = cycle
        self._flow = flow
        self._transport = transport

    def write(self, piece: bytes) -> bool:
        """Write a piece at once. Return False, and write nothing, if the client's buffer is full, if the connection
        is closing, or if the response has no body in chunks."""
        if self._flow.write_paused or not self._cycle.chunked_encoding or self._transport.is_closing():
            return False
        if piece is not _last.piece:
            _last.piece, _last.framed = piece, b"%x\r\n%b\r\n" % (len(piece), piece)
        self._transport.write(_last.framed)
        return True
