"""A connection to a provider gives each request its own answer, whatever the server does, and never repeats one."""

import asyncio
import gzip
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bench.certificate import make_certificate
from tests.provider_client import KEY, Make, ask, collect, failure, text_in
from tests.raw_server import HEAD, answering
from tests.test_redirects import ANSWERS, addresses
from workers.providers import connection_pool
from workers.providers.framing import MAX_PIECE_BYTES

BODY = {name: ANSWERS[name][1] for name in ("openai", "ollama")}
both = pytest.mark.parametrize("name", BODY)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def response(body: bytes, *headers: bytes) -> bytes:
    lines = (b"content-length: %d" % len(body), *headers)
    return b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


async def request_from(reader: asyncio.StreamReader) -> bytes:
    """Return the head of the next request, empty if the client has left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head


class Server:
    """Answers the requests of all its connections with ``answers`` in turn. ``heads``: of the requests."""

    def __init__(self, answers: Iterable[bytes | Serve]) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Queue[None]()
        self._answers = iter(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await request_from(reader):
            self.heads.append(head)
            answer = next(self._answers)
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(reader, writer)
                break
        self.left.put_nowait(None)
        writer.close()

    @asynccontextmanager
    async def running(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        async with await asyncio.start_server(self.serve, host, 0, ssl=context) as listener:
            yield listener.sockets[0].getsockname()[1]


async def closing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def url_at(port: int) -> dict[str, str]:
    return addresses(f"http://127.0.0.1:{port}")


# --- one answer for each request


@both
async def test_an_answer_follows_interim_responses(make: Make, name: str) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\ncontent-encoding: gzip\r\nlink: <a>\r\n\r\n"
    server = Server([interim + response(BODY[name])] * 2)
    async with server.running() as port:
        provider = make(name, **url_at(port))
        for _ in range(2):
            assert text_in(await collect(provider, ask("m"))) == "here"
    assert server.connections == 1


@both
async def test_a_request_is_not_repeated_when_its_server_leaves(make: Make, name: str) -> None:
    """The server may have acted on it. The worker's own retries count as such."""
    server = Server([response(BODY[name]), closing, response(BODY[name])])
    async with server.running() as port:
        provider = make(name, **url_at(port))
        assert text_in(await collect(provider, ask("m"))) == "here"
        error = await failure(provider, ask("m"))
        assert (error.code, error.retryable) == ("provider_unreachable", True)
        assert len(server.heads) == 2
        assert text_in(await collect(provider, ask("m"))) == "here"


@both
async def test_bytes_that_were_not_asked_for_are_in_no_answer(make: Make, name: str) -> None:
    foreign = response(BODY[name].replace(b"here", b"from another one"))
    is_sent = asyncio.Event()

    async def answer_and_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response(BODY[name]))
        await is_sent.wait()
        writer.write(foreign)
        await reader.read()  # the client closes the connection

    server = Server([answer_and_more, response(BODY[name]) + foreign, response(BODY[name])])
    async with server.running() as port:
        provider = make(name, **url_at(port))
        assert text_in(await collect(provider, ask("m"))) == "here"
        is_sent.set()
        await server.left.get()
        for _ in range(2):
            assert text_in(await collect(provider, ask("m"))) == "here"
        assert server.connections == 3


@both
async def test_a_connection_is_closed_when_it_was_idle_for_long(
    make: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pool, "_KEEP_ALIVE_S", 0.05)
    server = Server([response(BODY[name])])
    async with server.running() as port:
        provider = make(name, **url_at(port))
        assert text_in(await collect(provider, ask("m"))) == "here"
        await server.left.get()


@both
async def test_a_cookie_is_sent_back(make: Make, name: str) -> None:
    first = response(BODY[name], b"set-cookie: route=a1; Path=/", b"Set-Cookie: other=2; Path=/elsewhere")
    server = Server([first, response(BODY[name])])
    async with server.running("localhost") as port:
        provider = make(name, **addresses(f"http://localhost:{port}"))
        for _ in range(2):
            assert text_in(await collect(provider, ask("m"))) == "here"
    assert b"cookie" not in server.heads[0].lower()
    assert b"\r\nCookie: route=a1\r\n" in server.heads[1]


async def test_redirects_in_a_circle_end(make: Make) -> None:
    circle = response(b"", b"location: /round").replace(b"200 OK", b"307 Temporary Redirect")
    server = Server([circle] * 20)
    async with server.running() as port:
        error = await failure(make("openai", **url_at(port)), ask("m"))
        assert (error.code, error.retryable) == ("provider_protocol", False)
        assert f"a redirect to http://127.0.0.1:{port}" in error.detail
    assert len(server.heads) == 10
    assert server.connections == 1


@both
async def test_cancelling_before_the_answer_closes_the_connection(make: Make, name: str) -> None:
    has_request = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        has_request.set()
        await reader.read()

    server = Server([silent])
    async with server.running() as port:
        reading = asyncio.create_task(collect(make(name, **url_at(port)), ask("m")))
        await has_request.wait()
        reading.cancel()
        await server.left.get()
        await asyncio.wait([reading])


# --- bytes without end


HEADS_WITHOUT_END = {
    "header": (b"HTTP/1.1 200 OK\r\nx: ", b"x" * 65_536),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000),
    "interim responses": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 2_000),
    "extension of a chunk": (HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\n5;", b"x" * 65_536),
    "trailers": (HEAD[:-2] + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10_000),
}


@both
@pytest.mark.parametrize("form", HEADS_WITHOUT_END)
async def test_a_head_without_end_is_bounded(make: Make, name: str, form: str) -> None:
    opening, piece = HEADS_WITHOUT_END[form]

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(opening)
        with suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()

    async with Server([endless]).running() as port:
        provider = make(name, **url_at(port))
        tracemalloc.start()
        try:
            error = await failure(provider, ask("m"))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (error.code, error.retryable) in {("provider_unreachable", True), ("upstream_truncated", True)}
    assert most < MAX_PIECE_BYTES


# --- compression


CODED = HEAD[:-2] + b"content-encoding: gzip\r\n\r\n"


@both
async def test_a_compressed_body_may_have_several_members(make: Make, name: str) -> None:
    body = BODY[name]
    async with answering(gzip.compress(body[:40]) + gzip.compress(body[40:]), CODED) as url:
        assert text_in(await collect(make(name, **addresses(url)), ask("m"))) == "here"


@both
async def test_a_compressed_body_that_is_cut_off_is_no_answer(make: Make, name: str) -> None:
    whole = gzip.compress(BODY[name])
    async with answering(whole[: len(whole) // 2], CODED) as url:
        error = await failure(make(name, **addresses(url)), ask("m"))
    assert (error.code, error.retryable) == ("upstream_truncated", True)


@both
@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd"])
async def test_a_body_that_cannot_be_decompressed_is_no_answer(make: Make, name: str, coding: bytes) -> None:
    async with answering(BODY[name], CODED.replace(b"gzip", coding)) as url:
        error = await failure(make(name, **addresses(url)), ask("m"))
    assert (error.code, error.retryable) == ("upstream_truncated", True)


@both
@pytest.mark.parametrize("status", [b"200 OK", b"503 Unavailable"])
async def test_little_that_is_decompressed_to_much_is_bounded(make: Make, name: str, status: bytes) -> None:
    bomb = gzip.compress(b"data: " + b"x" * (16 * MAX_PIECE_BYTES))
    async with answering(bomb, CODED.replace(b"200 OK", status)) as url:
        provider = make(name, **addresses(url))
        tracemalloc.start()
        try:
            error = await failure(provider, ask("m"))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert error.code == {b"200 OK": "provider_protocol"}.get(status, "provider_unavailable")
    assert most < 3 * MAX_PIECE_BYTES


# --- addresses, proxies, TLS


@both
@pytest.mark.parametrize("host", ["[::1]", "localhost"])
async def test_a_server_may_have_an_ipv6_address_alone(make: Make, name: str, host: str) -> None:
    server = Server([response(BODY[name])])
    async with server.running("::1") as port:
        names = {info[4][0] for info in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
        if host == "localhost" and "::1" not in names:
            pytest.skip("localhost has no IPv6 address here")
        provider = make(name, **addresses(f"http://{host}:{port}"))
        assert text_in(await collect(provider, ask("m"))) == "here"
        assert f"\r\nHost: {host}:{port}\r\n".encode() in server.heads[0]


async def test_the_requests_of_ollama_go_through_the_proxy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server([response(BODY["ollama"])])
    async with server.running() as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        provider = make("ollama", OLLAMA_HOST="http://provider.invalid:11434")
        assert text_in(await collect(provider, ask("m"))) == "here"
    assert server.heads[0].startswith(b"POST http://provider.invalid:11434/api/chat ")


async def test_a_login_in_the_address_is_sent(make: Make) -> None:
    server = Server([response(BODY["ollama"])])
    async with server.running() as port:
        provider = make("ollama", OLLAMA_HOST=f"http://user:pass@127.0.0.1:{port}")
        assert text_in(await collect(provider, ask("m"))) == "here"
    assert b"\r\nAuthorization: Basic dXNlcjpwYXNz\r\n" in server.heads[0]


async def test_a_name_that_has_just_been_looked_up_has_addresses() -> None:
    """Also for a request in the very turn of the event loop in which the look-up ends."""
    names = connection_pool.Names("127.0.0.1", 80)
    asked = [asyncio.create_task(names.addresses())]
    while not asked[0].done():
        asked.append(asyncio.create_task(names.addresses()))
        await asyncio.sleep(0)
    assert {address[4] for addresses in await asyncio.gather(*asked) for address in addresses} == {("127.0.0.1", 80)}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    return make_certificate(tmp_path_factory.mktemp("a")), make_certificate(tmp_path_factory.mktemp("b"))


@both
@pytest.mark.parametrize(("host", "trusts"), [("localhost", False), ("127.0.0.2", True)])
async def test_a_server_with_a_wrong_certificate_gets_no_request(
    make: Make,
    name: str,
    host: str,
    trusts: bool,
    certificates: tuple[tuple[Path, Path], tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates[0 if trusts else 1][0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificates[0])
    server = Server([response(BODY[name])])
    async with server.running("0.0.0.0", context) as port:
        error = await failure(make(name, **addresses(f"https://{host}:{port}")), ask("m"))
    assert (error.code, error.retryable) == ("provider_unreachable", True)
    assert "SSLCertVerificationError" in error.detail
    assert not server.heads


@both
async def test_a_server_without_tls_handshake_is_a_connect_timeout(make: Make, name: str) -> None:
    async with Server([]).running() as port:
        urls = addresses(f"https://127.0.0.1:{port}")
        error = await failure(make(name, **urls), ask("m"))
    assert (error.code, error.retryable) == ("provider_connect_timeout", True)
    assert KEY not in error.detail
