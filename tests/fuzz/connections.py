"""Targets: bytes on a connection, up to the application."""

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from gateway.edge.middleware import EdgeMiddleware
from gateway.edge.protocol import EdgeProtocol, protocol
from shared.settings import Settings
from shared.tracing import Tracing
from tests.fuzz.mutations import mutated_bytes, split_randomly
from tests.fuzz.target import Target
from tests.raw_requests import AMBIGUOUS, CHAT, CHUNKED, HOST, SMUGGLED, chunked, post

_GOOD: Final = (
    post(HOST, f"Content-Length: {len(CHAT)}", "X-Request-Id: a", body=CHAT),
    post(HOST, CHUNKED, body=chunked(CHAT)),
    post(
        HOST, CHUNKED, "Expect: 100-continue", body=chunked(CHAT).replace(b"\r\n0\r\n", b"\r\n0;e=1\r\nX-T: 1\r\n", 1)
    ),
    post(HOST, "Content-Length: 5", target="/unread", body=b"hello"),
    b"GET /chat/stream/a?ticket=b HTTP/1.1\r\nHost: x\r\nCookie: headrace=c; d=e\r\nLast-Event-ID: 3-4\r\n\r\n",
)
_AMBIGUOUS: Final = tuple(AMBIGUOUS.values())
_PROTOCOL: Final = protocol(Settings(_env_file=None), 1000)
_MOST_TURNS: Final = 2000


@dataclass
class _Seen:
    """Requests that the application got, as (target, body)."""

    requests: list[tuple[bytes, bytes]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/unread":
            await PlainTextResponse("unread")(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        self.requests.append((scope["raw_path"], body))
        await PlainTextResponse("ok")(scope, receive, send)


class _Transport(asyncio.Transport):
    """A connection in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default


#: The server logs every invalid request.
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


async def _exchange(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes]], bytes]:
    seen = _Seen([])
    app = EdgeMiddleware(seen, Tracing())
    config = uvicorn.Config(app, http=_PROTOCOL, lifespan="off", log_config=None, access_log=False)
    config.load()
    connection = _PROTOCOL(config=config, server_state=ServerState(), app_state={})
    transport = _Transport()
    connection.connection_made(transport)
    for piece in pieces:
        if transport.closed:
            break
        connection.data_received(piece)
        await _idle(connection)
    connection.connection_lost(None)
    await _idle(connection)
    for timer in (connection.timeout_keep_alive_task,):
        if timer is not None:
            timer.cancel()
    return seen.requests, bytes(transport.written)


async def _idle(connection: EdgeProtocol) -> None:
    """Let the application run until it waits for more input."""
    for _ in range(8):
        await asyncio.sleep(0)
    for _ in range(_MOST_TURNS):
        if not any(not task.done() for task in connection.tasks) or connection.cycle is None:
            return
        if connection.cycle.more_body or connection.cycle.response_complete:
            return
        await asyncio.sleep(0)


def _bytes(rng: random.Random) -> list[bytes]:
    sent = b"".join(rng.choice(_GOOD if rng.random() < 0.8 else _AMBIGUOUS) for _ in range(rng.randrange(1, 5)))
    sent += SMUGGLED
    if rng.random() < 0.9:
        sent = mutated_bytes(sent, rng)
    return split_randomly(sent, rng)


def _serve(pieces: list[bytes]) -> None:
    """Check that the requests do not depend on how they are split, as far as they are answered, and that nothing but
    responses is written."""
    requests, written = asyncio.run(_exchange(pieces))
    whole, written_at_once = asyncio.run(_exchange([b"".join(pieces)]))
    shorter = min(len(requests), len(whole))
    assert requests[:shorter] == whole[:shorter], "the requests depend on how they are split"
    for answers in (written, written_at_once):
        assert not answers or answers.startswith(b"HTTP/1.1 ")
        assert b"\nHTTP/1.1 5" not in b"\n" + answers
        assert b"Traceback" not in answers


CONNECTIONS: Final = (Target("connection", _bytes, _serve),)
