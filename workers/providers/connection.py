"""HTTP/1.1 connection to a provider: one request at a time, its response parsed where the loop receives it."""

import asyncio
from collections.abc import Sequence

from workers.providers.response import Response


class Connection(asyncio.Protocol):
    """A connection, which is in ``among`` while it is open."""

    transport: asyncio.Transport

    def __init__(self, among: set["Connection"]) -> None:
        self.idle_since = 0.0
        self._among = among
        self._response: Response | None = None

    def send(self, request: Sequence[bytes]) -> Response:
        self._response = response = Response(self)
        if self.transport.is_closing():
            response.end(None)
        else:
            self.transport.writelines(request)
        return response

    def release(self, now: float) -> bool:
        """End the request. Returns True if the connection can serve another one; otherwise it is closed, without
        waiting for what is still to be sent."""
        response, self._response = self._response, None
        was_paused = response is not None and response.release()
        if response is None or not response.can_keep or self.transport.is_closing() or self._is_sending():
            self.transport.abort()
            return False
        if was_paused:  # otherwise it would not notice that the server closes it
            self.resume_reading()
        self.idle_since = now
        return True

    def pause_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _is_sending(self) -> bool:
        return self.transport.get_write_buffer_size() > 0

    # --- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a stream
        self._among.add(self)

    def eof_received(self) -> None:
        """Note the end, and let the transport close."""
        if self._response is not None:
            self._response.end(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._response is not None:
            self._response.end(error)
        self._among.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            self.transport.abort()  # nothing was asked for, so nothing after it can be trusted
        else:
            self._response.receive(data)
