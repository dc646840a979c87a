"""One connection through a proxy: its two ends, the bytes between them, and its faults."""

import asyncio
import socket
import struct
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from tests.chaos.proxy import Proxy

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
#: Small, so that a peer that does not read slows the other side.
_BUFFER_BYTES: Final = 16 * 1024


class Way(StrEnum):
    """The direction that falls silent."""

    BOTH = "both"
    TO_SERVER = "to server"  # the client's bytes are lost
    TO_CLIENT = "to client"  # the server acts, and its bytes are lost


class Link:
    """One connection: the two ends of it."""

    def __init__(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self.silent = proxy.silent
        self.truncate = False
        self.client = _End(self, Way.TO_SERVER)
        self.server = _End(self, Way.TO_CLIENT)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.server, "127.0.0.1", self.proxy.target_port)
        except OSError:
            self.reset()

    def reset(self) -> None:
        self.proxy.links.discard(self)
        for end in (self.client, self.server):
            end.reset()

    def forwards(self, way: Way) -> bool:
        return self.silent not in (Way.BOTH, way)

    def other(self, end: "_End") -> "_End":
        return self.server if end is self.client else self.client


class _End(asyncio.Protocol):
    """One end: forwards its bytes to the other end; ``way`` is their direction."""

    def __init__(self, link: Link, way: Way) -> None:
        self._link = link
        self._way = way
        self._transport: asyncio.Transport | None = None
        self._delayed: deque[tuple[float, bytes | None]] = deque()
        self._early: list[bytes] = []  # came before the other end was connected
        self._closed = False
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        link = self._link
        if self._way is Way.TO_CLIENT:
            for piece in self._early:
                self._transport.write(piece)
            self._early.clear()
            if self._closed:
                self._transport.close()
        elif link.proxy.refuse:
            link.proxy.refused += 1
            self.reset()
        else:
            link.proxy.links.add(link)
            self._connecting = asyncio.get_running_loop().create_task(link.connect())

    def data_received(self, data: bytes) -> None:
        link = self._link
        if not link.forwards(self._way):
            return
        if link.truncate and self._way is Way.TO_CLIENT:
            link.silent = Way.BOTH
            link.other(self).send(data[: len(data) // 2])
            asyncio.get_running_loop().call_soon(link.reset if len(data) % 2 else link.other(self).close)
            return
        self._forward(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        link = self._link
        if not link.forwards(self._way):
            return  # the other side gets no end; it times out, or `reset` closes it
        link.proxy.links.discard(link)
        if error is not None:
            link.other(self).reset()
        else:
            self._forward(None)

    def pause_writing(self) -> None:
        self._link.other(self).pause()

    def resume_writing(self) -> None:
        self._link.other(self).resume()

    def _forward(self, data: bytes | None) -> None:
        """Forward to the other end, after the delay and in order; None: the end of the connection."""
        delay_s = self._link.proxy.delay_s
        if not delay_s and not self._delayed:
            self._link.other(self).take(data)
            return
        loop = asyncio.get_running_loop()
        self._delayed.append((loop.time() + delay_s, data))
        if len(self._delayed) == 1:
            loop.call_later(delay_s, self._forward_due)

    def _forward_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._delayed and self._delayed[0][0] <= loop.time() + 0.001:
            self._link.other(self).take(self._delayed.popleft()[1])
        if self._delayed:
            loop.call_later(max(0.001, self._delayed[0][0] - loop.time()), self._forward_due)

    # --- calls of the other end

    def take(self, data: bytes | None) -> None:
        if data is None:
            self.close()
        else:
            self.send(data)

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        self._closed = True
        if self._transport is not None and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
