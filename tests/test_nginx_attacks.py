"""The real nginx with ``deploy/nginx`` passes on one request for one request, and bounds what a client may take."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from tests.h2_connection import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Fields,
    H2Connection,
    fields_of,
    frame,
    h2_connected,
)
from tests.nginx import Nginx, need_nginx
from tests.raw_client import connected

MOST_CONNECTIONS = 20
#: Shorter times and lower limits than those of ``deploy/nginx``, so that a test reaches them; yet this process may
#: stand still for some seconds between a handshake and its request.
CHANGES = {
    "client_header_timeout 30s;": "client_header_timeout 10s;",
    "client_body_timeout 30s;": "client_body_timeout 3s;",
    "keepalive_timeout 75s;": "keepalive_timeout 10s;",
    "limit_conn headrace_clients 1000;": f"limit_conn headrace_clients {MOST_CONNECTIONS};",
}


@dataclass
class Upstream:
    """A gateway's place behind nginx. It keeps the bytes of each request and answers 200; to ``/held``, never."""

    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.requests.append(head + body)
                if b" /held " in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx")
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream() -> Upstream:
    return Upstream()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nginx(upstream: Upstream) -> AsyncIterator[Nginx]:
    need_nginx()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    nginx = Nginx([server.sockets[0].getsockname()[1]], CHANGES)
    try:
        await nginx.start()
        yield nginx
    finally:
        nginx.stop()
        server.close()


async def is_served(nginx: Nginx) -> bool:
    """Check that another client gets its response, over both protocols, even in the middle of a flood."""
    async with h2_connected(nginx.port, nginx.tls) as other:
        assert await other.request(fields_of("/innocent")) == 200
    async with connected(nginx.port, nginx.tls) as connection:
        await connection.send(b"GET /innocent HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await connection.rest()).startswith(b"HTTP/1.1 200")
    return True


# --- one request is one request

EVIL = "\r\nX-Evil: 1"
REQUEST = "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
INJECTED: dict[str, tuple[Fields, bytes]] = {
    "a line in a value": (fields_of("/a", ("x-a", f"b{EVIL}")), b""),
    "a request in a value": (fields_of("/a", ("x-a", f"b\r\n\r\n{REQUEST}")), b""),
    "a bare LF in a value": (fields_of("/a", ("x-a", "b\nX-Evil: 1")), b""),
    "NUL in a value": (fields_of("/a", ("x-a", "b\0X-Evil: 1")), b""),
    "a line in a name": (fields_of("/a", (f"x-a: b{EVIL}", "c")), b""),
    "a colon in a name": (fields_of("/a", ("x-evil: 1", "c")), b""),
    "a space in a name": (fields_of("/a", ("x-evil ", "c")), b""),
    "upper case in a name": (fields_of("/a", ("X-Evil", "c")), b""),
    "an empty name": (fields_of("/a", ("", "X-Evil: 1")), b""),
    "a line in the path": (fields_of(f"/a HTTP/1.1{EVIL}"), b""),
    "a request in the path": (fields_of(f"/a HTTP/1.1\r\nHost: x\r\n\r\n{REQUEST}"), b""),
    "a space in the path": (fields_of("/a HTTP/1.1 /evil"), b""),
    "no path": ([(":method", "GET"), (":scheme", "https"), (":authority", "localhost")], b""),
    "an empty path": (fields_of(""), b""),
    "two paths": (fields_of("/a", (":path", "/evil")), b""),
    "a line in the method": (fields_of("/a", method=f"GET /evil HTTP/1.1{EVIL}\r\n\r\nGET"), b""),
    "a line in the authority": (
        [(":method", "GET"), (":path", "/a"), (":scheme", "https"), (":authority", f"localhost{EVIL}")],
        b"",
    ),
    "a pseudo field after others": ([("x-a", "b"), *fields_of("/a")], b""),
    "an unknown pseudo field": (fields_of("/a", (":evil", "1")), b""),
    "an encoding": (
        fields_of("/a", ("transfer-encoding", "chunked"), method="POST"),
        f"0\r\n\r\n{REQUEST}".encode(),
    ),
    "a length that is too small": (fields_of("/a", ("content-length", "1"), method="POST"), b"x" + REQUEST.encode()),
    "a length that is too large": (fields_of("/a", ("content-length", "500"), method="POST"), REQUEST.encode()),
    "two lengths": (
        fields_of("/a", ("content-length", "1"), ("content-length", "36"), method="POST"),
        b"x" + REQUEST.encode(),
    ),
    "a length that is none": (fields_of("/a", ("content-length", "1, 36"), method="POST"), b"x" + REQUEST.encode()),
    "an upgrade": (fields_of("/a", ("connection", "upgrade"), ("upgrade", "h2c")), b""),
}


@pytest.mark.parametrize(("fields", "body"), INJECTED.values(), ids=INJECTED)
async def test_nothing_is_injected_through_http_2(
    nginx: Nginx, upstream: Upstream, fields: Fields, body: bytes
) -> None:
    upstream.requests.clear()
    async with h2_connected(nginx.port, nginx.tls) as connection:
        await connection.request(fields, body)
    assert await is_served(nginx)
    passed = [request for request in upstream.requests if b"/innocent" not in request]
    assert len(passed) <= 1
    for request in passed:
        head, _, _ = request.partition(b"\r\n\r\n")
        assert re.match(rb"(GET|POST) /a HTTP/1\.1\r\n", head), head
        names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert not {b"x-evil", b"transfer-encoding", b"upgrade", b"", b"x-evil "} & set(names), head
        assert names.count(b"host") == 1
        assert names.count(b"content-length") <= 1


@pytest.mark.parametrize(("authority", "host"), [("localhost", "evil.example"), ("evil.example", "localhost")])
async def test_one_host_is_passed_on(nginx: Nginx, upstream: Upstream, authority: str, host: str) -> None:
    """The gateway sees one Host, whatever a client sends in the two places."""
    upstream.requests.clear()
    fields = [(":method", "GET"), (":path", "/a"), (":scheme", "https"), (":authority", authority), ("host", host)]
    async with h2_connected(nginx.port, nginx.tls) as connection:
        await connection.request(fields)
    for request in upstream.requests:
        assert len(re.findall(rb"\r\nhost:", request, re.IGNORECASE)) == 1


async def test_fields_named_in_connection_are_not_lost(nginx: Nginx, upstream: Upstream) -> None:
    """``Connection: X-Api-Key`` must not make nginx drop the credentials, or our own fields."""
    upstream.requests.clear()
    names = "X-Api-Key, Authorization, Idempotency-Key, X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Host"
    fields = "X-Api-Key: k\r\nIdempotency-Key: i"
    head = f"GET /a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nConnection: close, {names}\r\n\r\n"
    async with connected(nginx.port, nginx.tls) as connection:
        await connection.send(head.encode())
        assert (await connection.rest()).startswith(b"HTTP/1.1 200")
    (request,) = upstream.requests
    sent = {line.partition(b":")[0].lower() for line in request.split(b"\r\n")}
    assert sent >= {
        b"x-api-key",
        b"idempotency-key",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
        b"host",
    }
    assert b"connection: close" not in request.lower()


INTERNAL = [
    *("/metrics", "/METRICS", "/metrics/", "//metrics", "/./metrics", "/a/../metrics", "/a/%2e%2e/metrics"),
    *("/%2e/metrics", "/%6detrics", "/metrics%00", "/metrics%20", "/metrics%0a", "/metrics%2f", "/metrics%3fa"),
    *(
        "/metrics;a=b",
        "/metrics#a",
        "/metrics?a",
        "/a%2f..%2fmetrics",
        "/a/..%2fmetrics",
        "/%256detrics",
        "/\\metrics",
    ),
    *(
        "http://localhost/metrics",
        "https://x@localhost/metrics",
        "http://localhost//metrics",
        "/readyz",
        "/healthz/.",
    ),
]


@pytest.mark.parametrize("target", INTERNAL)
async def test_no_spelling_of_an_internal_path_reaches_a_gateway_as_that_path(
    nginx: Nginx, upstream: Upstream, target: str
) -> None:
    upstream.requests.clear()
    async with connected(nginx.port, nginx.tls) as connection:
        await connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert (await connection.rest()).startswith(b"HTTP/1.1 ")
    for request in upstream.requests:
        path = request.split(b" ")[1].partition(b"?")[0]
        decoded = re.sub(rb"%([0-9a-fA-F]{2})", lambda match: bytes.fromhex(match[1].decode()), path)
        assert decoded not in {b"/metrics", b"/healthz", b"/readyz"}, request


# --- floods


def small_fields(connection: H2Connection) -> Iterator[bytes]:
    """Ten thousand small fields and cookies in one request."""
    fields = fields_of(
        "/a", *((f"x-{i}", "a") for i in range(10_000)), *(("cookie", f"c{i}=d") for i in range(10_000))
    )
    yield from _in_continuations(connection.encoder.encode(fields))


def indexed_field(connection: H2Connection) -> Iterator[bytes]:
    """A field of 4 KB that fills the table, repeated by a byte each time: a hundred megabytes in all."""
    block = connection.encoder.encode(fields_of("/a", ("x-a", "a" * 3900)))
    yield from _in_continuations(block + connection.encoder.encode([("x-a", "a" * 3900)]) * 30_000)


def endless_continuations(connection: H2Connection) -> Iterator[bytes]:
    """A head that never ends."""
    yield frame(HEADERS, END_STREAM, 1, connection.encoder.encode(fields_of("/a")))
    field = b"\x00\x01x" + b"\x7f\x80\x01" + b"a" * 255  # a literal that is not indexed
    for _ in range(1000):
        yield frame(CONTINUATION, 0, 1, field * 60)


def empty_continuations(_: H2Connection) -> Iterator[bytes]:
    yield frame(HEADERS, END_STREAM, 1, b"")
    yield from (frame(CONTINUATION, 0, 1, b"") * 100 for _ in range(2000))


def rapid_resets(connection: H2Connection) -> Iterator[bytes]:
    """Streams that are opened and reset at once."""
    for stream in range(1, 20_000, 2):
        block = connection.encoder.encode(fields_of("/reset"))
        reset = frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block) + reset


def pings(_: H2Connection) -> Iterator[bytes]:
    yield from (frame(PING, 0, 0, b"12345678") * 100 for _ in range(1000))


def settings(_: H2Connection) -> Iterator[bytes]:
    yield from (frame(SETTINGS, 0, 0, b"") * 100 for _ in range(1000))


def _in_continuations(block: bytes) -> Iterator[bytes]:
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    for at, piece in enumerate(pieces):
        ends = END_HEADERS if at == len(pieces) - 1 else 0
        yield frame(CONTINUATION if at else HEADERS, ends if at else ends | END_STREAM, 1, piece)


FLOODS: tuple[Callable[[H2Connection], Iterator[bytes]], ...] = (
    *(small_fields, indexed_field, endless_continuations, empty_continuations, rapid_resets, pings, settings),
)


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_a_flood_of_frames_ends_its_connection_and_no_other(
    nginx: Nginx, upstream: Upstream, flood: Callable[[H2Connection], Iterator[bytes]]
) -> None:
    upstream.requests.clear()
    async with h2_connected(nginx.port, nginx.tls) as attacker:
        frames = list(flood(attacker))
        sending = asyncio.create_task(attacker.send_frames(frames))
        assert await is_served(nginx)
        await attacker.until_closed()
        sending.cancel()
        await asyncio.wait((sending,))
    assert await is_served(nginx)
    passed = [request for request in upstream.requests if b"/innocent" not in request]
    assert len(passed) <= 1000, "as many as one connection may have"
    assert all(b" /reset " in request for request in passed), "a head over the limit was passed on"


# --- slow and many


async def test_heads_and_handshakes_that_never_end_are_closed(nginx: Nginx) -> None:
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(nginx.port)) for _ in range(60)]  # no handshake
        half = [await stack.enter_async_context(connected(nginx.port, nginx.tls)) for _ in range(30)]
        for connection in half:
            await connection.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        started = [await stack.enter_async_context(h2_connected(nginx.port, nginx.tls)) for _ in range(10)]
        for other in started:
            await other.send_frames([frame(HEADERS, END_STREAM, 1, other.encoder.encode(fields_of("/a")))])
        assert await is_served(nginx)
        for connection in (*silent, *half):
            assert b"200" not in await connection.rest()
        for other in started:
            await other.until_closed()


async def test_an_address_has_only_so_many_requests_in_progress(nginx: Nginx) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            connection = await stack.enter_async_context(connected(nginx.port, nginx.tls))
            await connection.send(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await connection.head())[0] == 200
        one_more = await stack.enter_async_context(connected(nginx.port, nginx.tls))
        await one_more.send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await one_more.answer()
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many_connections", "5")
        assert json.loads(answer.body)["error"]["retryable"] is True
    async with asyncio.timeout(60):
        while True:
            async with connected(nginx.port, nginx.tls) as connection:
                await connection.send(b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if (await connection.answer()).status == 200:
                    return
