"""A strict reader of server-sent events over a raw socket. It keeps every byte, and can stop reading or
disconnect."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import h11


@dataclass(frozen=True, slots=True)
class Frame:
    """One dispatched event, as the standard defines it. ``id`` is None if the block had no id line."""

    event: str
    data: dict[str, Any]
    id: str | None
    retry: int | None

    @property
    def at(self) -> str:
        """Return the id of a frame that must have one."""
        assert self.id is not None
        return self.id


class Broken(Exception):
    """The body ended without its terminating chunk."""


class SseConnection:
    """A response of server-sent events. ``raw``: the whole body so far."""

    def __init__(self, sock: socket.socket, parser: h11.Connection, response: h11.Response) -> None:
        self.status = response.status_code
        self.headers = {name.decode(): value.decode() for name, value in response.headers}
        self.raw = bytearray()
        self._sock = sock
        self._parser = parser
        self._parsed = 0

    @property
    def stream_id(self) -> str:
        return self.headers["x-stream-id"]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Close the socket without a word to the server."""
        self._sock.close()

    async def read_some(self) -> bytes:
        """Return the next piece of the body; empty at its proper end. Raises :class:`Broken`."""
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Data):
                self.raw += event.data
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""
            received = await _receive(self._sock)
            if not received:
                raise Broken
            self._parser.receive_data(received)

    async def frames(self) -> AsyncIterator[Frame]:
        """Yield frames until the body ends properly. Raises :class:`Broken`."""
        while True:
            while (end := self.raw.find(b"\n\n", self._parsed)) >= 0:
                block = self.raw[self._parsed : end].decode()
                self._parsed = end + 2
                if frame := _parse(block):
                    yield frame
            if not await self.read_some():
                left = bytes(self.raw[self._parsed :]).replace(b": ping\n", b"")
                assert not left, f"the body ended within a block: {left!r}"
                return

    async def next(self, event: str) -> Frame:
        """Return the next frame of this kind."""
        async for frame in self.frames():
            if frame.event == event:
                return frame
        raise AssertionError(f"the stream ended without {event}")

    async def until_text(self, text: str) -> list[Frame]:
        """Return the next frames, up to the one with which their tokens are this text."""
        seen: list[Frame] = []
        async for frame in self.frames():
            seen.append(frame)
            if text_of(seen) == text:
                return seen
        raise AssertionError(f"the stream ended with {text_of(seen)!r}")

    async def take(self, count: int) -> list[Frame]:
        """Return the next ``count`` events that have an id; synthetic frames are left out."""
        taken: list[Frame] = []
        if count:
            async for frame in self.frames():
                if frame.id is not None:
                    taken.append(frame)
                if len(taken) == count:
                    break
        return taken

    async def rest(self) -> list[Frame]:
        """Return all remaining frames, and close the connection."""
        with self._sock:
            return [frame async for frame in self.frames()]


def _parse(block: str) -> Frame | None:
    fields: dict[str, list[str]] = {}
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    if "data" not in fields:
        raise AssertionError(f"a block without data: {block!r}")
    retry = fields.get("retry")
    return Frame(
        event=fields["event"][-1],
        data=json.loads("\n".join(fields["data"])),
        id=fields["id"][-1] if "id" in fields else None,
        retry=int(retry[-1]) if retry else None,
    )


async def open_sse(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: object = None,
    receive_buffer: int | None = None,
) -> SseConnection:
    """Open a stream. ``receive_buffer``: bytes that the kernel accepts before the test reads, to be a truly slow
    client."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        return await _open(sock, method, url, headers or {}, json)
    except BaseException:
        sock.close()
        raise


async def _open(
    sock: socket.socket, method: str, url: str, headers: Mapping[str, str], json: object
) -> SseConnection:
    where = urlsplit(url)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (where.hostname, where.port))
    body = b"" if json is None else _encode(json)
    parser = h11.Connection(h11.CLIENT)
    target = where.path + (f"?{where.query}" if where.query else "")
    request = h11.Request(
        method=method,
        target=target,
        headers=list({"Host": where.netloc, "Content-Length": str(len(body)), **headers}.items()),
    )
    sent = (parser.send(request) or b"") + (parser.send(h11.Data(body)) or b"")
    await loop.sock_sendall(sock, sent + (parser.send(h11.EndOfMessage()) or b""))
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Response):
            return SseConnection(sock, parser, event)
        received = await _receive(sock)
        if not received:
            raise Broken
        parser.receive_data(received)


def _encode(body: object) -> bytes:
    return json.dumps(body).encode()


async def _receive(sock: socket.socket) -> bytes:
    async with asyncio.timeout(60):
        return await asyncio.get_running_loop().sock_recv(sock, 65536)


def text_of(frames: list[Frame]) -> str:
    return "".join(frame.data["token"] for frame in frames if frame.event == "token")


def error_of(frames: Sequence[Frame]) -> tuple[str, bool]:
    """Return (code, retryable). The stream must end with this error and `done`."""
    assert [frame.event for frame in frames[-2:]] == ["error", "done"]
    assert frames[-1].data["finish_reason"] == "error"
    assert frames[-1].data["reason"] == frames[-2].data["code"]
    return frames[-2].data["code"], frames[-2].data["retryable"]
