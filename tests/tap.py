"""A proxy between our processes and Redis: it adds the round trip of a network, and notes each exchange.

``python -m tests.tap <port> <round trip in ms>`` runs one in a process of its own, and prints its port. Its timers
are precise to some 0.1 ms; those of a test's event loop round up to whole milliseconds.
"""

import asyncio
import selectors
import socket
import sys
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import hiredis


@dataclass(frozen=True, slots=True)
class Piece:
    """Commands or replies that came together. ``at``: when the tap got them. ``connection``: its number."""

    at: float
    connection: int
    is_reply: bool
    values: list[Any]


class Tap:
    """Forwards connections to ``target_port`` on loopback. Each piece arrives half of ``round_trip_s`` later, in
    order; connecting takes no time. ``pieces``: what has passed; kept only while ``records`` is set. Replies stay
    here while ``holds_replies`` is set."""

    def __init__(self, target_port: int, round_trip_s: float = 0.0) -> None:
        self.target_port = target_port
        self.round_trip_s = round_trip_s
        self.records = False
        self.holds_replies = False
        self.pieces: list[Piece] = []
        self.port = 0
        self.connections = 0
        self.open = set[_End]()
        self.held: list[tuple[_End, bytes | None]] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        sock = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only for sockets made like this
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _End(self), sock=sock, backlog=1024)

    def release(self) -> None:
        """Forward the replies that were held, and those that come from now on."""
        self.holds_replies = False
        held, self.held = self.held, []
        for end, data in held:
            end.forward(data)

    def cut(self) -> None:
        """Close the connections that are open."""
        for end in list(self.open):
            end.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.sleep(0)


class _End(asyncio.Protocol):
    """One end of a connection. The end towards the client is made first, and connects the other one."""

    def __init__(self, tap: Tap, other: "_End | None" = None) -> None:
        self._tap = tap
        self._other = other
        self._is_server = other is not None
        self._number: int = other._number if other is not None else 0
        self._transport: asyncio.Transport | None = None
        self._delayed: deque[tuple[float, bytes | None]] = deque()
        self._early: list[bytes | None] = []
        self._reader = hiredis.Reader()
        self._connecting: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._tap.open.add(self)
        for piece in self._early:
            self._take(piece)
        self._early.clear()
        if self._other is None:
            self._tap.connections += 1
            self._number = self._tap.connections
            self._other = _End(self._tap, self)
            self._connecting = asyncio.get_running_loop().create_task(self._connect(self._other))

    async def _connect(self, other: "_End") -> None:
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: other, "127.0.0.1", self._tap.target_port)
        except OSError:
            self.close()

    def data_received(self, data: bytes) -> None:
        if self._tap.records:
            self._record(data)
        self.forward(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._tap.open.discard(self)
        self.forward(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _record(self, data: bytes) -> None:
        self._reader.feed(data)
        values = []
        while (value := self._reader.gets()) is not False:
            values.append(value)
        if values:
            now = asyncio.get_running_loop().time()
            self._tap.pieces.append(Piece(now, self._number, self._is_server, values))

    def forward(self, data: bytes | None) -> None:
        """Forward to the other end, after the delay and in order; None: the end of the connection."""
        if self._is_server and self._tap.holds_replies:
            self._tap.held.append((self, data))
            return
        delay_s = self._tap.round_trip_s / 2
        if not delay_s and not self._delayed:
            self._hand_over(data)
            return
        loop = asyncio.get_running_loop()
        self._delayed.append((loop.time() + delay_s, data))
        if len(self._delayed) == 1:
            loop.call_later(delay_s, self._forward_due)

    def _forward_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._delayed and self._delayed[0][0] <= loop.time():
            self._hand_over(self._delayed.popleft()[1])
        if self._delayed:
            loop.call_at(self._delayed[0][0], self._forward_due)

    def _hand_over(self, data: bytes | None) -> None:
        if self._other is not None:
            self._other._take(data)

    def _take(self, data: bytes | None) -> None:
        if self._transport is None:
            self._early.append(data)
        elif data is None:
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write(data)


async def _serve(target_port: int, round_trip_s: float) -> None:
    tap = Tap(target_port, round_trip_s)
    await tap.start()
    print(tap.port, flush=True)
    await asyncio.get_running_loop().create_future()


def _precise_loop() -> asyncio.AbstractEventLoop:
    """Return a loop whose timers are not rounded to milliseconds, as epoll's are."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    target_port, round_trip_ms = int(sys.argv[1]), float(sys.argv[2])
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        runner.run(_serve(target_port, round_trip_ms / 1000))


if __name__ == "__main__":
    main()
