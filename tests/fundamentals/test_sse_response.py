"""An SSE response keeps its connection honest: heartbeats show that it lives, a client that takes nothing is cut, and
only a stream that has ended gets a complete body."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from starlette.types import Message

from gateway.auth.grants import Grant, GrantEnded, LiveGrants
from gateway.live.renderer import HEARTBEAT
from gateway.live.sse import Stalled, StreamResponse
from gateway.live.subscription import Drained
from shared.settings import Settings

Chunks = AsyncGenerator[bytes, None]


@dataclass
class Client:
    """The ASGI server's side of one connection. ``takes``: number of messages accepted before the socket is full.
    ``delay_s``: time that each piece of the body takes."""

    takes: float = float("inf")
    delay_s: float = 0
    sent: list[Message] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: Message) -> None:
        if len(self.sent) >= self.takes:
            await asyncio.Event().wait()
        self.sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.sleep(self.delay_s)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def pieces(self) -> list[bytes]:
        return [message["body"] for message in self.sent if message["type"] == "http.response.body"]

    @property
    def is_complete(self) -> bool:
        return self.sent[-1].get("more_body") is False


async def respond(client: Client, chunks: Chunks, grant: Any = None, **settings: Any) -> None:
    grant = LiveGrants(None, None).watch(Grant("p")) if grant is None else grant
    async with asyncio.timeout(60):
        await StreamResponse(chunks, Settings(**settings), grant)({"type": "http"}, client.receive, client.send)


async def of(*chunks: bytes) -> Chunks:
    for chunk in chunks:
        yield chunk


async def test_retry_is_part_of_the_first_block_only() -> None:
    client = Client()
    await respond(client, of(b"data: 1\n\n", b"data: 2\n\n"), retry_ms=1234)
    assert client.pieces == [b"retry: 1234\ndata: 1\n\n", b"data: 2\n\n", b""]


async def test_an_ended_stream_completes_its_body() -> None:
    client = Client()
    await respond(client, of(b"data: 1\n\n"))
    assert client.is_complete
    headers = dict(client.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-store"


async def test_a_silent_stream_sends_heartbeats() -> None:
    async def silent() -> Chunks:
        yield b"data: 1\n\n"
        while client.pieces.count(HEARTBEAT) < 2:
            await asyncio.sleep(0.01)
        yield b"data: 2\n\n"

    client = Client()
    await respond(client, silent(), heartbeat_s=0.1)
    assert client.pieces[-2:] == [b"data: 2\n\n", b""]


async def test_a_busy_stream_needs_no_heartbeat() -> None:
    """It is busy for longer than the interval of heartbeats. A pause of this process is silence, and gets its own."""
    loop, silent_s = asyncio.get_running_loop(), 0.0

    async def busy() -> Chunks:
        nonlocal silent_s
        for _ in range(30):
            began = loop.time()
            await asyncio.sleep(0.05)
            silent_s += elapsed if (elapsed := loop.time() - began) > 0.5 else 0
            yield b"data: x\n\n"

    client = Client()
    await respond(client, busy(), heartbeat_s=1)
    assert client.pieces.count(HEARTBEAT) <= 2 * silent_s


async def test_a_large_event_is_sent_in_pieces_with_no_heartbeat_between_them() -> None:
    client = Client(delay_s=0.02)
    event = b"data: %b\n\n" % (b"x" * 500_000)
    await respond(client, of(event), heartbeat_s=0.01)
    assert len(client.pieces) > 3
    assert event in b"".join(client.pieces)


async def test_a_client_that_takes_nothing_is_cut_after_the_write_deadline() -> None:
    client = Client(takes=2)  # the head and the first chunk
    closed = asyncio.Event()

    async def endless() -> Chunks:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.set()

    began = asyncio.get_running_loop().time()
    with pytest.raises(Stalled):
        await respond(client, endless(), write_deadline_s=1)
    assert asyncio.get_running_loop().time() - began >= 0.9
    assert closed.is_set()


async def test_a_drain_leaves_the_body_incomplete_and_spreads_the_reconnects() -> None:
    async def drained() -> Chunks:
        yield b"data: 1\n\n"
        raise Drained

    retries = []
    for _ in range(5):
        client = Client()
        with pytest.raises(Drained):
            await respond(client, drained(), retry_ms=1000)
        assert not client.is_complete
        retries.append(int(client.pieces[-1].removeprefix(b"retry: ")))
    assert all(1000 <= retry_ms <= 3000 for retry_ms in retries)
    assert any(one != other for one, other in pairwise(retries))


async def test_a_client_that_disconnects_stops_the_stream() -> None:
    client = Client()
    closed = asyncio.Event()

    async def endless() -> Chunks:
        try:
            yield b"data: 1\n\n"
            client.left.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    await respond(client, endless())
    assert closed.is_set()
    assert not client.is_complete


async def test_a_grant_that_ends_cuts_the_stream() -> None:
    grants = LiveGrants(None, None)
    watching = asyncio.create_task(grants.run())

    async def endless() -> Chunks:
        while True:
            await asyncio.sleep(0.05)
            yield b"data: x\n\n"

    client = Client()
    with pytest.raises(GrantEnded):
        await respond(client, endless(), grants.watch(Grant("p", expires_at=0.0)))
    assert not client.is_complete
    watching.cancel()
