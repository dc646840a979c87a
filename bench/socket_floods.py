"""Longest turn of a gateway's event loop while a WebSocket floods it: ``python -m bench.socket_floods [ROUNDS]``.

One read of small frames, 256 kB, is parsed at once (as the library does by itself) and in turns. The figure is the
CPU time of the loop's thread in its longest turn: all other clients of the gateway wait for so long. Both ways are
measured one after the other in each round; the figures are medians.
"""

import asyncio
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, Final
from unittest.mock import patch

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from websockets.frames import Frame, Opcode

from bench.markdown import aligned
from gateway.edge.web_socket import WEB_SOCKET
from gateway.intake.body_memory import BodyMemory
from gateway.main import server_config
from shared.settings import Settings

_BYTES: Final = 256_000
_HANDSHAKE: Final = (
    b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PACED: Final = "gateway.edge.paced_web_socket"
_UNLIMITED: Final = 10**9


def _frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


def _repeated(unit: bytes) -> bytes:
    return unit * (_BYTES // len(unit))


_MESSAGE: Final = _frame(Opcode.TEXT, fin=False) + _frame(Opcode.CONT, fin=False) * 10_000 + _frame(Opcode.CONT)
_FLOODS: Final = {
    "empty pings": _repeated(_frame(Opcode.PING)),
    "empty fragments": _repeated(_MESSAGE),
    "messages of one byte": _repeated(_frame(Opcode.TEXT, b"x")),
}


async def _application(scope: Scope, receive: Receive, send: Send) -> None:
    """Read messages and ignore them."""
    await receive()
    await send({"type": "websocket.accept"})
    scope[WEB_SOCKET].begin_messages(BodyMemory(_UNLIMITED, 30), None)
    while (await receive())["type"] != "websocket.disconnect":
        await asyncio.sleep(0)


@contextmanager
def _limits(*, paced: bool) -> Iterator[None]:
    """Take the limits of a turn away, unless ``paced``."""
    if paced:
        yield
        return
    with ExitStack() as stack:
        for name in ("_FRAMES_A_TURN", "_BYTES_A_PIECE", "MOST_CONTROL_FRAMES"):
            stack.enter_context(patch(f"{_PACED}.{name}", _UNLIMITED))
        yield


async def _longest_turn_s(flood: bytes) -> float:
    """Send a flood over a socket, and return the CPU time of the loop's longest turn."""
    config: Any = server_config(Settings(), _application)
    config.lifespan = "off"
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, _HANDSHAKE)
    await loop.sock_recv(client, 4096)
    sending = asyncio.create_task(asyncio.to_thread(_send, client, flood))
    turns = [time.thread_time()]
    ended_at = time.monotonic() + 2
    while time.monotonic() < ended_at:
        await asyncio.sleep(0)
        turns.append(time.thread_time())
    client.close()
    await sending
    server.should_exit = server.force_exit = True
    await serving
    return max(after - before for before, after in pairwise(turns))


def _send(client: socket.socket, flood: bytes) -> None:
    client.setblocking(True)
    client.sendall(flood)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows = [["256 kB of", "frames", "at once, ms", "in turns, ms", "ratio"]]
    for name, flood in _FLOODS.items():
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            for paced, seconds in found.items():
                with _limits(paced=paced):
                    seconds.append(uvloop.run(_longest_turn_s(flood)) * 1e3)
        before, after = (statistics.median(seconds) for seconds in found.values())
        frames = len(flood) // (7 if "one byte" in name else 6)
        rows.append([name, f"{frames:,}", f"{before:.0f}", f"{after:.1f}", f"{after / before:.3f}"])
    print(aligned(rows))


if __name__ == "__main__":
    main()
