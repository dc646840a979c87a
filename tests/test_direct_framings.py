"""Answers read by a sink are the same as those read by a task, however HTTP frames, cuts, encrypts or breaks them."""

import asyncio
import gzip
import json
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.certificate import make_certificate
from shared.errors import ProviderError
from tests.provider_client import Make, ask, text_in
from tests.test_direct_reads import ListSink
from tests.test_redirects import addresses
from workers.providers.base import Delta, Provider, SinkError

WORDS = [f"wörd {n} " for n in range(60)]
Frame = Callable[[bytes], tuple[str, bytes]]
_RESET = struct.pack("ii", 1, 0)


def sse() -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in WORDS]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def lines() -> bytes:
    parts = [{"message": {"role": "assistant", "content": word}, "done": False} for word in WORDS]
    parts.append({"message": {"content": ""}, "done": True, "done_reason": "stop"})
    return b"".join(json.dumps(part).encode() + b"\n" for part in parts)


def chunks_of(body: bytes, extension: bytes = b"") -> bytes:
    pieces = [body[at : at + 53] for at in range(0, len(body), 53)]
    return b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)


BODIES = {"openai": sse(), "ollama": lines()}
CHUNKED, CODED = "transfer-encoding: chunked\r\n", "content-encoding: {}\r\n"
WHOLE: dict[str, Frame] = {
    "length": lambda body: (f"content-length: {len(body)}\r\n", body),
    "chunked": lambda body: (CHUNKED, chunks_of(body) + b"0\r\n\r\n"),
    "trailers": lambda body: (CHUNKED + "trailer: x-sum\r\n", chunks_of(body, b";a=b") + b"0\r\nx-sum: 1\r\n\r\n"),
    "end of connection": lambda body: ("connection: close\r\n", body),
    "more than its length": lambda body: (f"content-length: {len(body)}\r\n", body + b"HTTP/1.1 500 no\r\n\r\n"),
    "gzip": lambda body: (CODED.format("gzip"), gzip.compress(body)),
    "deflate": lambda body: (CHUNKED + CODED.format("deflate"), chunks_of(zlib.compress(body)) + b"0\r\n\r\n"),
    "identity": lambda body: (CODED.format("identity"), body),
}
BROKEN: dict[str, Frame] = {
    "a chunk cut off": lambda body: (CHUNKED, chunks_of(body[:900]) + b"fff\r\n" + body[900:950]),
    "no chunk of length 0": lambda body: (CHUNKED, chunks_of(body[:900])),
    "less than its length": lambda body: (f"content-length: {len(body)}\r\n", body[:900]),
    "an end without its marker": lambda body: ("connection: close\r\n", body[:900]),
}


@dataclass
class Server:
    """Sends the head with the first bytes of the body, and the rest in pieces once ``go`` is set."""

    frame: Frame
    piece_bytes: int
    protocol: str = "HTTP/1.1"
    keeps_open: bool = False
    resets: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    got_all: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                await reader.readuntil(b"}]")  # the messages
                await self.answer(writer, BODIES["ollama" if b"/api/chat" in request else "openai"])
                if not self.keeps_open:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        if self.resets:
            await self.got_all.wait()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        writer.close()

    async def answer(self, writer: asyncio.StreamWriter, whole: bytes) -> None:
        head, body = self.frame(whole)
        first = body.find(b"\n") + 200
        writer.write(f"{self.protocol} 200 OK\r\n{head}\r\n".encode() + body[:first])
        await self.go.wait()
        for at in range(first, len(body), self.piece_bytes):
            writer.write(body[at : at + self.piece_bytes])
            for _ in range(3):  # the client, in the same loop, reads
                await asyncio.sleep(0)


@asynccontextmanager
async def serving(server: Server, context: ssl.SSLContext | None) -> AsyncIterator[str]:
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listener:
        scheme = "http" if context is None else "https"
        yield f"{scheme}://localhost:{listener.sockets[0].getsockname()[1]}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


ways = pytest.mark.parametrize(
    ("name", "scheme"), [("openai", "http"), ("openai", "https"), ("ollama", "http"), ("ollama", "https")]
)


@pytest.fixture
def context(scheme: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext | None:
    if scheme == "http":
        return None
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def outcome(provider: Provider, server: Server, *, has_sink: bool, expected: int) -> tuple[str, str, int]:
    """Return the text, the code of the error, and the number of reads that the sink took."""
    deltas = list[Delta]()
    sink, code = ListSink(deltas), ""

    def note() -> None:
        if len(text_in(deltas)) >= expected:
            server.got_all.set()

    taken = sink.take
    sink.take = lambda more: (taken(more), note())[0]  # type: ignore[method-assign, assignment, func-returns-value]
    try:
        async with aclosing(provider.stream(ask("m"), None, sink if has_sink else None)) as answer:
            async for part in answer:
                deltas += part if isinstance(part, list) else ()
                sink.is_open = True
                server.go.set()
                note()
    except ProviderError as error:
        code = error.code
    server.go.clear()
    return text_in(deltas), code, sink.taken


async def both(make: Make, name: str, server: Server, url: str, expected: int = 1_000_000) -> tuple[str, str]:
    """Return the outcome of reading by a task and by a sink."""
    provider = make(name, **addresses(url))
    by_task = await outcome(provider, server, has_sink=False, expected=expected)
    server.got_all.clear()
    if not server.keeps_open:
        provider = make(name, **addresses(url))
    by_sink = await outcome(provider, server, has_sink=True, expected=expected)
    assert by_sink[:2] == by_task[:2]
    is_coded = any(f"content-encoding: {coding}" in server.frame(b"")[0] for coding in ("gzip", "deflate"))
    assert (by_sink[2] == 0) == is_coded
    return by_sink[:2]


@ways
@pytest.mark.parametrize("form", WHOLE)
async def test_a_sink_reads_every_framing(make: Make, name: str, form: str, context: ssl.SSLContext | None) -> None:
    for piece_bytes in (17, 4096):
        server = Server(WHOLE[form], piece_bytes)
        async with serving(server, context) as url:
            assert await both(make, name, server, url) == ("".join(WORDS), "")


@ways
async def test_a_sink_reads_http_1_0(make: Make, name: str, context: ssl.SSLContext | None) -> None:
    server = Server(WHOLE["end of connection"], 100, protocol="HTTP/1.0")
    async with serving(server, context) as url:
        assert await both(make, name, server, url) == ("".join(WORDS), "")


@ways
@pytest.mark.parametrize("form", BROKEN)
async def test_a_broken_body_has_the_same_error_and_text(
    make: Make, name: str, form: str, context: ssl.SSLContext | None
) -> None:
    server = Server(BROKEN[form], 100)
    async with serving(server, context) as url:
        text, code = await both(make, name, server, url)
    assert code in {"upstream_truncated", "provider_protocol", "provider_unreachable"}
    assert len(text) > len("".join(WORDS)) / 8


@ways
async def test_a_reset_has_the_same_error_and_text(make: Make, name: str, context: ssl.SSLContext | None) -> None:
    body = BODIES[name]
    cut = body.find(b"\n", 900) + 2
    server = Server(lambda whole: (f"content-length: {len(body) + 9}\r\n", whole[:cut]), 100, resets=True)
    words = body[:cut].count(b'"content"')
    async with serving(server, context) as url:
        text, code = await both(make, name, server, url, expected=len("".join(WORDS[:words])))
    assert (text, code) == ("".join(WORDS[:words]), "upstream_truncated")


@ways
@pytest.mark.parametrize("form", ["length", "chunked"])
async def test_the_next_answer_has_the_connection_that_a_sink_read(
    make: Make, name: str, form: str, context: ssl.SSLContext | None
) -> None:
    server = Server(WHOLE[form], 100, keeps_open=True)
    async with serving(server, context) as url:
        assert await both(make, name, server, url) == ("".join(WORDS), "")
    assert server.connections == 1


@pytest.mark.parametrize("name", BODIES)
async def test_the_error_of_a_sink_is_no_error_of_the_provider(make: Make, name: str) -> None:
    class Failing(ListSink):
        def take(self, deltas: list[Delta]) -> None:
            raise ValueError(deltas)

    server, sink = Server(WHOLE["chunked"], 100), Failing([])

    async def read(url: str) -> None:
        async with aclosing(make(name, **addresses(url)).stream(ask("m"), None, sink)) as answer:
            async for _ in answer:
                sink.is_open = True
                server.go.set()

    async with serving(server, None) as url:
        with pytest.raises(SinkError) as caught:
            await read(url)
    assert isinstance(caught.value.error, ValueError)
